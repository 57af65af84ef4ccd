//! Speed against independent implementations, in the same run and process: the median of several rounds each.
//!
//! Fails where a promise is broken: 65,536 samples in at most 50 ms, a training step faster than candle's.

#[path = "../../tests/common/head.rs"]
mod head;
#[path = "../tests/picture/mod.rs"]
mod picture;

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::DType;
use chacha20::ChaCha20Rng;
use head::{Case, STUDENT};
use learn::head::{Gradients, Network, Subset, accumulate};
use learn::privacy::sampler::DiscreteGaussian;
use learn_oracle::Oracle;
use rand::distr::Distribution;
use rand_core::SeedableRng;

const SAMPLES: usize = 65_536;

fn median(rounds: usize, mut work: impl FnMut()) -> Duration {
    work();
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}

fn milliseconds(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// Sampling at the sigma of a release: noise multiplier 1.2, clip 2048 steps.
fn compare_samplers() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let ours = DiscreteGaussian::new(12_288, 5).expect("in range");
    let ours = median(15, || {
        (0..SAMPLES).for_each(|_| {
            black_box(ours.sample(&mut rng));
        })
    });
    let std = prio::dp::Rational::from_unsigned(12_288_u32, 5_u32).expect("a fraction");
    let prio = prio::dp::distributions::DiscreteGaussian::new(std).expect("in range");
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let theirs = median(3, || {
        (0..SAMPLES).for_each(|_| {
            black_box(prio.sample(&mut rng));
        })
    });
    let (ours, theirs) = (milliseconds(ours), milliseconds(theirs));
    println!(
        "{SAMPLES} discrete Gaussian samples, sigma 2457.6: {ours:.1} ms, libprio {theirs:.1} ms, {:.1} x",
        theirs / ours
    );
    assert!(ours <= 50.0, "sampling is slower than promised");
}

fn compare_training() {
    let case = Case::new(STUDENT, 1);
    let (features, target) = case.single();
    let parameters: Vec<f32> = case.parameters.iter().map(|&value| value as f32).collect();
    let network = Network::new(&case.layout, &parameters).expect("the same layout");
    let step = |subset| {
        let mut gradients = Gradients::new(&case.layout, subset);
        milliseconds(median(31, || {
            gradients.clear();
            black_box(accumulate(&network, &features, &target, &mut gradients));
        }))
    };
    let (full, sparse) = (step(Subset::Full), step(Subset::Sparse));
    let forward = milliseconds(median(31, || {
        black_box(network.predict(&features));
    }));
    let oracle = Oracle::new(&case.layout, &case.parameters, DType::F32).expect("tensors");
    let picture = picture::of(&case, DType::F32);
    let candle = milliseconds(median(31, || {
        let loss = oracle.loss(&picture).expect("forward");
        black_box(loss.backward().expect("backward"));
    }));
    println!(
        "forward and backward of one example, full two layers: {full:.2} ms, candle {candle:.2} ms, {:.2} x",
        candle / full
    );
    println!(
        "the same, sparse subset: {sparse:.2} ms, {:.2} x; forward alone {forward:.2} ms",
        candle / sparse
    );
    assert!(full < candle, "training is slower than candle's");
}

fn main() {
    compare_samplers();
    compare_training();
}
