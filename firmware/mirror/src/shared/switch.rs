//! The camera's switch.

use std::fmt;
use std::time::Instant;

/// Who used the switch last. Completes "switched off ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchedBy {
    /// `camera.enabled`.
    Settings,
    /// Somebody on the page, now or before the last restart.
    Page,
    /// Somebody on the page, and no page is served that has the switch.
    PageClosed,
    /// Nobody knows: what was stored cannot be read.
    Unreadable,
}

impl SwitchedBy {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            SwitchedBy::Settings => "in the settings",
            SwitchedBy::Page => "on the mirror's page",
            SwitchedBy::PageClosed => {
                "on the page, which is closed: set page.enabled, or remove camera-switch from the data folder"
            }
            SwitchedBy::Unreadable => "because its stored switch cannot be read",
        }
    }
}

impl fmt::Display for SwitchedBy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.words())
    }
}

/// How the switch is.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Whether the camera should be on.
    pub is_on: bool,
    /// Who said so, where anybody did.
    pub by: Option<SwitchedBy>,
    /// Since when pictures may be shown, where it is on.
    pub fresh_since: Instant,
}

impl Switch {
    /// At the start; `off_by` wants it off.
    pub fn new(off_by: Option<SwitchedBy>, started: Instant) -> Switch {
        Switch { is_on: off_by.is_none(), by: off_by, fresh_since: started }
    }

    /// Uses it; whether that changes anything.
    pub fn turn(&mut self, on: bool, by: SwitchedBy) -> bool {
        self.by = Some(by);
        let changes = self.is_on != on;
        if on && changes {
            self.fresh_since = Instant::now();
        }
        self.is_on = on;
        changes
    }
}
