//! Who may take part, and under which names.

use proto::secret::DeviceSecret;
use proto::{DeviceId, Pseudonym};

use super::{Engine, EngineError, Result};
use crate::audit::Event;
use crate::hex;
use crate::records::{Device, Standing};
use crate::rollout_rules::is_group;

/// Names that the sample broker's access list gives to others.
const RESERVED: [&str; 2] = ["aggregator", "broker"];

impl Engine {
    /// Enrols a device, and names it in the round at hand. Enrolling it again with the same certificate is no error.
    pub fn enrol(&self, name: &str, fingerprint: &str) -> Result<Device> {
        self.enrol_in(name, fingerprint, None)
    }

    /// [`Engine::enrol`] into a group for roll-outs, or into another one.
    pub fn enrol_in(&self, name: &str, fingerprint: &str, group: Option<&str>) -> Result<Device> {
        let id: DeviceId = name.parse()?;
        if RESERVED.contains(&name) {
            return Err(EngineError::Reserved(name.to_owned()));
        }
        if let Some(group) = group.filter(|group| !is_group(group)) {
            return Err(EngineError::Group(group.to_owned()));
        }
        // openssl prints "sha256 Fingerprint=AB:CD:..", and people paste all of it.
        let digits = fingerprint.rsplit_once('=').map_or(fingerprint, |(_, digits)| digits);
        let digest: [u8; 32] =
            hex::decode(digits).ok_or_else(|| EngineError::Fingerprint(fingerprint.to_owned()))?;
        let device = Device {
            name: name.to_owned(),
            fingerprint: hex::encode(&digest),
            standing: Standing::Enrolled,
            enrolled_at: self.now(),
            group: group.map(str::to_owned),
        };
        let known = self.store.device(name)?;
        let is_new = known.is_none();
        match known {
            Some(known) if known.standing != Standing::Enrolled => {
                return Err(EngineError::Revoked(name.to_owned()));
            }
            Some(known) if known.fingerprint != device.fingerprint => {
                return Err(EngineError::OtherCertificate(name.to_owned()));
            }
            Some(known) if group.is_none() || known.group == device.group => return Ok(known),
            Some(_) => {}
            None => self.refuse_known(&device.fingerprint)?,
        }
        let event = Event::DeviceEnrolled {
            device: device.name.clone(),
            fingerprint: device.fingerprint.clone(),
            group: device.group.clone(),
        };
        let live = self.live_round()?.filter(|_| is_new);
        self.decide(|decision| {
            decision.put_device(&device)?;
            if let Some(round) = &live {
                decision.put_name(round.id, self.pseudonym(&id, round.id), name)?;
            }
            decision.record(&event)
        })?;
        Ok(device)
    }

    /// Refuses a certificate that another name has which was not revoked.
    fn refuse_known(&self, fingerprint: &str) -> Result<()> {
        let other = self.store.holder(fingerprint)?;
        other.map_or(Ok(()), |device| Err(EngineError::KnownCertificate(device.name)))
    }

    /// The secret of a device, for its settings.
    pub fn secret(&self, device: &DeviceId) -> DeviceSecret {
        DeviceSecret::derive(&self.secrets, device)
    }

    pub(super) fn pseudonym(&self, device: &DeviceId, round: u64) -> Pseudonym {
        self.secret(device).pseudonym(&self.channel, round)
    }

    /// Revokes a device, for good.
    pub fn revoke(&self, name: &str, reason: &str) -> Result<Device> {
        let known = self.store.device(name)?;
        let mut device = known.ok_or_else(|| EngineError::NoDevice(name.to_owned()))?;
        device.standing = Standing::Revoked { reason: reason.to_owned() };
        let event = Event::DeviceRevoked { device: name.to_owned(), reason: reason.to_owned() };
        self.decide(|decision| {
            decision.put_device(&device)?;
            decision.record(&event)
        })?;
        Ok(device)
    }
}
