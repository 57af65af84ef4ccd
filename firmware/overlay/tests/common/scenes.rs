//! One example of every status.
#![allow(dead_code)] // each user takes what it needs

use std::time::Duration;

use overlay::Status;

/// Every status screen with its file name.
pub fn statuses() -> Vec<(&'static str, Status<'static>)> {
    let lost = Status::CameraLost {
        device: "/dev/video0",
        reason: "no such device",
        absent: true,
        retry_in: Duration::from_millis(3400),
    };
    let busy = Status::CameraLost {
        device: "/dev/video0",
        reason: "it is in use by another program, or nothing feeds its bridge; close or start that first",
        absent: false,
        retry_in: Duration::from_millis(3400),
    };
    let pairing = Status::Pairing {
        code: "493 027",
        fingerprint: "A1B2 C3D4 E5F6 A7B8 C9D0 E1F2 A3B4 C5D6 E7F8 A9B0 C1D2 E3F4 A5B6 C7D8 E9F0 A1B2",
        left: Duration::from_millis(117_200),
    };
    let spoiled = Status::Pairing {
        code: "493 027",
        fingerprint: "A1B2 C3D4 E5F6 A7B8 C9D0 E1F2 A3B4 C5D6 E7F8 A9B0 C1D2 E3F4 A5B6 C7D8 E9F0 A1B2",
        left: Duration::ZERO,
    };
    vec![
        ("pairing", pairing),
        ("pairing-spoiled", spoiled),
        ("starting", Status::Starting { step: "opening the camera" }),
        ("camera-off", Status::CameraOff { by: "on the mirror's page", on_page: true }),
        ("camera-off-no-page", Status::CameraOff { by: "in the settings", on_page: false }),
        ("camera-lost", lost),
        ("camera-busy", busy),
        (
            "no-model",
            Status::NoModel { reason: "models/student/trunk.onnx: hash differs", built_in: true },
        ),
        ("thermal", Status::Thermal { celsius: 86.4 }),
    ]
}
