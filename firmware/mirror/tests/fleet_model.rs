//! A model of the fleet, tried with the network that ships on the check that ships.

use std::sync::Arc;
use std::time::Duration;

use home::{BaseModel, Home, HomeOptions};
use learn::head::Subset;
use mirror::{ModelSource, Trial};
use proto::status::JobFault;
use settings::Layers;
use uplink::edges::ModelTrial;

fn source() -> ModelSource {
    let settings = Layers::defaults().and_then(Layers::finish).expect("the defaults").settings;
    ModelSource::new(&settings.vision)
}

fn outcome(trial: &mut Trial, version: u64, parameters: Vec<u8>) -> Result<(), JobFault> {
    trial.begin(version, parameters).expect("a thread");
    waited(trial)
}

fn waited(trial: &mut Trial) -> Result<(), JobFault> {
    loop {
        if let Some(outcome) = trial.poll() {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn bytes(base: &BaseModel, change: impl Fn(f32) -> f32) -> Vec<u8> {
    let values = base.layout.gather(Subset::Full, &base.parameters);
    values.into_iter().flat_map(|value| change(value).to_le_bytes()).collect()
}

#[test]
fn a_good_model_is_put_in_force_and_bad_ones_are_named_by_their_fault() {
    let folder = std::env::temp_dir().join(format!("mirror-fleet-model-{}", std::process::id()));
    let base = BaseModel::new(&source().student().expect("the built-in network")).expect("a head");
    let open = || Home::open(&folder, base.clone(), HomeOptions::default()).expect("opens");
    let home = Arc::new(open());
    let mut trial = Trial::new(Arc::clone(&home), source());
    assert_eq!(trial.base().0, base.digest.0);

    let broken = bytes(&base, |_| 0.0);
    assert_eq!(outcome(&mut trial, 1, broken), Err(JobFault::PublicCheck));
    assert_eq!(outcome(&mut trial, 1, vec![0; 16]), Err(JobFault::Unusable));
    assert_eq!(outcome(&mut trial, 1, bytes(&base, |_| f32::NAN)), Err(JobFault::Unusable));
    assert_eq!((home.fleet_version(), home.base().digest), (0, base.digest));

    assert_eq!(outcome(&mut trial, 2, bytes(&base, |value| value * 1.0001)), Ok(()));
    assert_eq!((home.fleet_version(), trial.version()), (2, 2));
    assert_ne!(*home.head_values(), *base.parameters);
    drop((trial, home));
    assert_eq!(open().fleet_version(), 2, "after a restart");
    std::fs::remove_dir_all(&folder).expect("ours");
}
