//! One sample of every message, the same in every run: keys are fixed, and Ed25519 has no randomness.

#![allow(dead_code)] // each test program uses its part

use ed25519_dalek::SigningKey;
use proto::content::{ChunkRange, Content};
use proto::model::{ModelChunk, ModelManifest, ModelWanted};
use proto::secret::DeviceSecret;
use proto::signing::Signed;
use proto::status::{JobFault, JobNotice, JobPhase, JobState, Status};
use proto::task::{ReportWindow, RoundNotice, TaskManifest};
use proto::update::{ChunksWanted, Receipt, Refusal, UpdateChunk, UpdateOffer, Verdict};
use proto::wire::Blob;
use proto::{Channel, DeviceId, Digest, Message, Ratio};

pub fn fleet_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn channel() -> Channel {
    "stable".parse().unwrap()
}

pub fn device() -> DeviceId {
    "mirror-17".parse().unwrap()
}

pub fn secret() -> DeviceSecret {
    DeviceSecret::derive(&[9; 32], &device())
}

pub fn task() -> TaskManifest {
    TaskManifest {
        channel: channel(),
        round: 12,
        model_version: 3,
        model: Digest::of(b"model"),
        layout: Digest::of(b"layout"),
        dimension: 4096,
        noise_multiplier: Ratio::new(6, 5).unwrap(),
        clip: Ratio::new(1, 1).unwrap(),
        min_cohort: 100,
        max_update_bytes: 65_536,
        report: ReportWindow { after_seconds: 60, spread_seconds: 600 },
    }
}

pub fn model() -> ModelManifest {
    ModelManifest {
        channel: channel(),
        version: 4,
        base: Digest::of(b"base"),
        content: Content::of(&[5; 100_000]).unwrap(),
        rollout_permille: 250,
    }
}

pub fn offer(bytes: &[u8]) -> UpdateOffer {
    UpdateOffer::new(&secret().identity(&channel(), 12), &channel(), 12, bytes).unwrap()
}

/// What is done to one message of each kind.
pub trait Visitor {
    fn visit<M: Message + PartialEq + std::fmt::Debug>(&mut self, name: &str, message: &M);
}

pub fn each(visitor: &mut impl Visitor) {
    let key = fleet_key();
    let pseudonym = secret().pseudonym(&channel(), 12);
    let update = Digest::of(b"update");
    let chunks = vec![ChunkRange { first: 1, last: 4 }, ChunkRange { first: 7, last: 7 }];
    let receipt = |verdict| Receipt { round: 12, pseudonym, update, verdict };
    let open = RoundNotice::Open(task());
    visitor.visit("round open", &open);
    visitor.visit("round closed", &RoundNotice::Closed { channel: channel(), round: 12 });
    visitor.visit("round signed", &Signed::sign(&key, 30, &open).unwrap());
    visitor.visit("offer", &offer(b"a small update"));
    visitor.visit("offer's manifest", &offer(&[1; 70_000]).claimed().unwrap());
    let bytes = Blob(vec![1, 2, 3]);
    visitor.visit("chunk", &UpdateChunk { update, index: 1, bytes: bytes.clone() });
    let wanted = ChunksWanted { round: 12, update, lane: Some(3), chunks: chunks.clone() };
    visitor.visit("chunks wanted", &wanted);
    visitor.visit("chunks wanted, no lane", &ChunksWanted { lane: None, ..wanted });
    visitor.visit("accepted", &receipt(Verdict::Accepted { round: 11 }));
    let refusals = [
        Refusal::RoundClosed,
        Refusal::UnknownRound,
        Refusal::Busy { retry_seconds: 300 },
        Refusal::AnotherCounts,
        Refusal::Malformed,
        Refusal::Mismatch,
        Refusal::Norm,
        Refusal::Revoked,
    ];
    for refusal in refusals {
        visitor.visit(&format!("refused: {refusal:?}"), &receipt(Verdict::Refused(refusal)));
    }
    let accepted = receipt(Verdict::Accepted { round: 12 });
    visitor.visit("receipt signed", &Signed::sign(&key, 12, &accepted).unwrap());
    visitor.visit("model", &model());
    visitor.visit("model signed", &Signed::sign(&key, 31, &model()).unwrap());
    visitor.visit("model wanted", &ModelWanted { version: 4, model: update, chunks });
    visitor.visit("model chunk", &ModelChunk { model: update, index: 511, bytes });
    visitor.visit("online", &Status::Online { firmware: "0.1.0".into(), model_tried: 3 });
    visitor.visit("offline", &Status::Offline { lost: true });
    visitor.visit("job", &JobNotice::ForAnybody(model()));
    let (device, manifest) = (device(), model());
    visitor.visit("job for a device", &JobNotice::Install { device, manifest });
    let phases = [
        JobPhase::Downloading,
        JobPhase::Trying,
        JobPhase::Done,
        JobPhase::Failed(JobFault::Content),
        JobPhase::Failed(JobFault::Base),
        JobPhase::Failed(JobFault::Unusable),
        JobPhase::Failed(JobFault::PublicCheck),
        JobPhase::Failed(JobFault::Storage),
    ];
    for phase in phases {
        let state = JobState { job: update.job(), version: 4, phase };
        visitor.visit(&format!("job: {phase:?}"), &state);
    }
}
