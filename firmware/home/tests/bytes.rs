//! What an update costs on the network, against sending the whole model.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::fs;
use std::path::Path;

use learn::edges::{LayoutId, ReleaseId};
use learn::head::{HeadLayout, HeadShape, Subset};
use learn::privacy::NoiseMultiplier;
use learn::update::Header;

/// The student's sizes; `learn` checks that they are those of its manifest.
const STUDENT: HeadShape =
    HeadShape { queries: 28, dim: 96, hidden: 384, mask_height: 64, mask_width: 48 };

#[test]
fn an_update_is_a_small_part_of_the_model() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/student");
    let size = |file: &str| fs::metadata(model.join(file)).unwrap().len();
    let whole = size("trunk.onnx") + size("head.onnx");
    let layout = HeadLayout::of_shape(STUDENT).unwrap();
    for (subset, expected, least) in [(Subset::Sparse, 11_092, 99.0), (Subset::Full, 656_212, 70.0)]
    {
        let header = Header {
            release: ReleaseId([0; 16]),
            layout: LayoutId([0; 32]),
            noise_multiplier: NoiseMultiplier::DEFAULT,
            dimension: layout.subset_len(subset),
        };
        let bytes = header.encoded_bytes();
        let less = 100.0 * (1.0 - bytes as f64 / whole as f64);
        println!("{subset:?}: {bytes} of {whole} bytes, {less:.2} % less");
        assert_eq!(bytes, expected, "{subset:?}");
        assert!(less >= least, "{subset:?}: {bytes} of {whole} bytes");
    }
}
