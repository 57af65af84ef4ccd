//! What may be wrong with a message, a word each: for tallies, metrics and the log.

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($kind:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // the words say it
        pub enum $name {
            $($kind,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$kind,)+];

            /// One word.
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$kind => $word,)+
                }
            }
        }
    };
}

kinds! {
    /// What may be wrong with an update of a device of the round.
    RefusalKind {
        Busy = "busy",
        Channel = "channel",
        Chunk = "chunk",
        Malformed = "malformed",
        Noise = "noise",
        Norm = "norm",
        NotCollecting = "not-collecting",
        Revoked = "revoked",
        SecondUpdate = "second-update",
        Shape = "shape",
        Signature = "signature",
        TooLarge = "too-large",
        UnknownDevice = "unknown-device",
        UnknownRound = "unknown-round",
    }
}

kinds! {
    /// What may be wrong with any other message.
    StrangeKind {
        Chunk = "chunk",
        Job = "job",
        Name = "name",
        Offer = "offer",
        Request = "request",
        Status = "status",
        Stopped = "stopped",
        Topic = "topic",
        Version = "version",
    }
}
