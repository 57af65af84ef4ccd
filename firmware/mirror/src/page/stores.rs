//! The stores of learning at home, as requests find them.

use std::sync::Arc;

use axum::http::StatusCode;
use home::{Home, HomeError, Household};
use learn::consent::{ConsentError, ImproveMyMirror};

use crate::page::work::beside;
use crate::page::{Served, Trouble};

impl From<HomeError> for Trouble {
    fn from(error: HomeError) -> Trouble {
        let status = match &error {
            HomeError::Consent(ConsentError::Unstored(_) | ConsentError::Edge(_))
            | HomeError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
            HomeError::Consent(_) => StatusCode::FORBIDDEN,
            HomeError::NoCorrection(_) | HomeError::NoHead => StatusCode::NOT_FOUND,
            HomeError::PictureSize { .. } | HomeError::MaskSize { .. } | HomeError::Mask(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            HomeError::TooMany { .. }
            | HomeError::TooLarge { .. }
            | HomeError::OtherHead
            | HomeError::NoFleet => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Trouble::new(status, error.to_string())
    }
}

/// What learns, or why there is nothing that does.
pub fn home(served: &Served) -> Result<Arc<Home>, Trouble> {
    served.learning.home().cloned().ok_or_else(|| not_open(served))
}

/// The open stores, with or without a network, or why there are none.
pub fn household(served: &Served) -> Result<Arc<Household>, Trouble> {
    served.learning.household().cloned().ok_or_else(|| not_open(served))
}

fn not_open(served: &Served) -> Trouble {
    let reason = served.learning.trouble();
    let text = reason.unwrap_or_else(|| "learning at home is not ready yet".to_owned());
    Trouble::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// Whether somebody agreed to corrections. A consent that is being written is waited for, and not by the page's own thread.
pub async fn agreed(home: Arc<Home>) -> Result<(), Trouble> {
    beside(move || Ok(home.token::<ImproveMyMirror>().map(drop).map_err(HomeError::from)?)).await
}
