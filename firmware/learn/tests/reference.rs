//! The head against PyTorch: answers, loss and every gradient of `fixtures/head.f64` (see `fixtures/make_head.py`).

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use learn::head::{
    Features, Gradients, HeadLayout, HeadShape, Network, PARTS, Subset, Target, TrunkOutput,
    accumulate, loss_and_gradient,
};

const SHAPE: HeadShape =
    HeadShape { queries: 6, dim: 8, hidden: 12, mask_height: 16, mask_width: 12 };

struct Reader(Vec<f64>);

impl Reader {
    fn open() -> Reader {
        let (values, rest) = include_bytes!("fixtures/head.f64").as_chunks::<8>();
        assert!(rest.is_empty());
        Reader(values.iter().rev().map(|bytes| f64::from_le_bytes(*bytes)).collect())
    }

    fn take(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| self.0.pop().unwrap()).collect()
    }
}

fn assert_close(what: &str, ours: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    for (index, (ours, expected)) in ours.iter().zip(expected).enumerate() {
        let error = (ours - expected).abs() / expected.abs().max(1e-6);
        assert!(error < tolerance, "{what} {index}: {ours} instead of {expected}");
    }
}

#[test]
fn answers_loss_and_gradients_are_those_of_pytorch() {
    let mut reader = Reader::open();
    let layout = HeadLayout::of_shape(SHAPE).unwrap();
    let parameters = reader.take(layout.len());
    let queries = reader.take(SHAPE.queries * SHAPE.dim);
    let memory_a = reader.take(SHAPE.tokens(0) * SHAPE.dim);
    let memory_b = reader.take(SHAPE.tokens(1) * SHAPE.dim);
    let mask_features = reader.take(SHAPE.dim * SHAPE.cells());
    let shares = reader.take(PARTS * SHAPE.score_cells());
    let class_logits = reader.take(SHAPE.queries * 18);
    let mask_logits = reader.take(SHAPE.queries * SHAPE.cells());
    let expected_loss = reader.take(1)[0];
    let expected = reader.take(layout.subset_len(Subset::Full));
    assert!(reader.0.is_empty());

    let trunk = TrunkOutput {
        queries: &queries,
        memory_a: &memory_a,
        memory_b: &memory_b,
        mask_features: &mask_features,
    };
    let features = Features::new(&layout, &parameters, trunk).unwrap();
    let target = Target::from_shares(&SHAPE, shares).unwrap();
    let network = Network::new(&layout, &parameters).unwrap();
    let prediction = network.predict(&features);
    assert_close("class logits", &prediction.class_logits, &class_logits, 1e-9);
    assert_close("mask logits", &prediction.mask_logits, &mask_logits, 1e-9);
    let (loss, _) = loss_and_gradient(&SHAPE, &prediction, &target);
    assert_close("loss", &[loss], &[expected_loss], 1e-9);
    let mut gradients = Gradients::new(&layout, Subset::Full);
    accumulate(&network, &features, &target, &mut gradients);
    assert_close("gradient", &layout.gather(Subset::Full, &gradients.values), &expected, 1e-6);
}
