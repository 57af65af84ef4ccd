//! For tests: the page of a mirror whose camera delivers.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Request, StatusCode};
use home::HomeOptions;
use serde_json::{Value, json};
use settings::Layers;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::access::Access;
use crate::fleet::Fleet;
use crate::learning::Learning;
use crate::model::ModelSource;
use crate::page::guard::CHANGE_HEADER;
use crate::page::parse::worker;
use crate::page::routes::device_router;
use crate::page::{Page, Parts, Served};
use crate::parsed::Parsed;
use crate::run::switch::SwitchFile;
use crate::shared::{CameraState, Shared, SwitchedBy};
use crate::testing::Folder;

/// The page of a mirror whose camera delivers, with stores in a folder of its own.
pub struct Rig {
    pub served: Arc<Served>,
    pub router: Router,
    pub runtime: Runtime,
    pub folder: Folder,
}

impl Rig {
    pub fn new(name: &str) -> Rig {
        Rig::with(name, |folder| Learning::in_folder(folder, HomeOptions::default()))
    }

    pub fn with(name: &str, learning: impl Fn(&Path) -> Learning) -> Rig {
        let folder = Folder::new(name);
        let settings = Layers::defaults().and_then(Layers::finish).expect("the defaults");
        let shared = Arc::new(Shared::new(Instant::now(), None));
        let learning = Arc::new(learning(folder.path()));
        let model = ModelSource::new(&settings.settings.vision);
        let (queue, _) = worker::open(Arc::clone(&shared), Arc::clone(&learning), model);
        let (switch, access) = (SwitchFile::new(folder.path()), Access::closed(folder.path()));
        let fleet = Arc::new(Fleet::new(true));
        let parts = Parts { shared, switch, settings, access, learning, fleet, queue };
        let served = Page::new(parts).context;
        let router = device_router(Arc::clone(&served));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let rig = Rig { served, router, runtime: runtime.expect("a runtime"), folder };
        rig.switch_on();
        rig
    }

    pub fn switch_on(&self) {
        self.served.shared.switch_camera(true, SwitchedBy::Page);
        self.served.shared.update_health(|health| health.camera = CameraState::On);
    }

    pub async fn answer(&self, method: &str, path: &str, body: String) -> (StatusCode, Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CHANGE_HEADER, "1")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("infallible");
        let status = answer.status();
        (status, to_bytes(answer.into_body(), 1 << 20).await.expect("a short answer"))
    }

    pub fn status(&self, method: &str, path: &str, body: &str) -> StatusCode {
        self.runtime.block_on(self.answer(method, path, body.to_owned())).0
    }

    pub fn consent(&self, purpose: &str, version: u32, agree: bool) -> StatusCode {
        let body = json!({ "purpose": purpose, "version": version, "agree": agree });
        self.status("POST", "/api/learning/consent", &body.to_string())
    }

    /// Of the words of "Improve my mirror", and of "Contribute to the fleet".
    pub fn versions(&self) -> [u32; 2] {
        self.served.learning.household().expect("open").explanation().versions
    }

    pub fn agree(&self) {
        assert_eq!(self.consent("improve_my_mirror", self.versions()[0], true), StatusCode::OK);
    }

    /// Freezes the next picture; `meanwhile` happens just before it comes.
    pub fn freeze(&self, meanwhile: impl FnOnce()) -> (StatusCode, u64) {
        self.freeze_one(Parsed::blank((6, 8)), meanwhile)
    }

    pub fn freeze_one(&self, parsed: Parsed, meanwhile: impl FnOnce()) -> (StatusCode, u64) {
        let camera = async {
            let waiting = loop {
                match self.served.shared.take_freeze() {
                    Some(waiting) => break waiting,
                    None => tokio::task::yield_now().await,
                }
            };
            meanwhile();
            assert!(waiting.send(parsed).is_ok(), "nobody waits");
        };
        let freeze = self.answer("POST", "/api/freeze", String::new());
        let ((status, body), ()) = self.runtime.block_on(async { tokio::join!(freeze, camera) });
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        (status, answer["id"].as_u64().unwrap_or(0))
    }

    pub fn is_kept(&self, id: u64) -> bool {
        let kept = self.served.shared.frozen.get(id).is_some();
        let told = if kept { StatusCode::OK } else { StatusCode::GONE };
        assert_eq!(self.status("GET", &format!("/api/frozen/{id}/picture.png"), ""), told);
        kept
    }
}
