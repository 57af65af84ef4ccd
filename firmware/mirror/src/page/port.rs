//! The ports that the page listens at.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

/// Whose port it is, and so which setting names it.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// This machine's own browser.
    Device,
    /// Paired browsers of the home network.
    Network,
}

impl Whose {
    fn key(self) -> &'static str {
        match self {
            Whose::Device => "page.listen",
            Whose::Network => "page.network_listen",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Whose::Device => "MIRROR_PAGE_LISTEN",
            Whose::Network => "MIRROR_PAGE_NETWORK_LISTEN",
        }
    }
}

/// What is missing without the port.
impl fmt::Display for Whose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Whose::Device => "page",
            Whose::Network => "page for the home network",
        })
    }
}

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum PageError {
    #[error(
        "the page would be reachable from outside at {address}; only a loopback address \
         (127.0.0.1 or [::1]) is allowed for page.listen"
    )]
    NotLoopback { address: SocketAddr },
    #[error(
        "no {whose}: port {} of {} is in use, perhaps by another mirror; stop that program, or choose \
         another port with {} or {}={}",
        address.port(), address.ip(), whose.key(), whose.variable(), next_port(*address)
    )]
    Busy { whose: Whose, address: SocketAddr },
    #[error(
        "no {whose}: port {} of {} needs administrator rights; choose one above 1023 for {}",
        address.port(), address.ip(), whose.key()
    )]
    Forbidden { whose: Whose, address: SocketAddr },
    #[error("no {whose}: cannot listen at {address}: {source}; change {}", whose.key())]
    Listen { whose: Whose, address: SocketAddr, source: io::Error },
}

/// `address` with the next port.
fn next_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port().wrapping_add(1))
}

/// Opens the page's port; port 0 takes any free one.
///
/// # Errors
/// An address that is not loopback, or a port that cannot be had.
pub fn listen(address: SocketAddr) -> Result<TcpListener, PageError> {
    if !address.ip().is_loopback() {
        return Err(PageError::NotLoopback { address });
    }
    bind(Whose::Device, address)
}

/// [`listen`] at any address; `whose` is named where it cannot be had.
pub(super) fn bind(whose: Whose, address: SocketAddr) -> Result<TcpListener, PageError> {
    let opened = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    opened.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => PageError::Busy { whose, address },
        ErrorKind::PermissionDenied => PageError::Forbidden { whose, address },
        _ => PageError::Listen { whose, address, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_cannot_be_had_names_its_own_setting() {
        let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = other.local_addr().expect("bound");
        for (whose, key, what) in [
            (Whose::Device, "page.listen or MIRROR_PAGE_LISTEN=127", "no page: port"),
            (
                Whose::Network,
                "page.network_listen or MIRROR_PAGE_NETWORK_LISTEN=127",
                "network: port",
            ),
        ] {
            let text = bind(whose, address).expect_err("in use").to_string();
            assert!(text.contains(key) && text.contains(what), "{text}");
            assert_eq!(text.matches("no page").count(), 1, "{text}");
        }
        assert!(listen("192.0.2.1:80".parse().expect("an address")).is_err());
    }
}
