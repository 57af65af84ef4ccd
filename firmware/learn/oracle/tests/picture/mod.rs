//! A test case as candle tensors.

use candle_core::{DType, Device, Tensor};
use learn::head::PARTS;
use learn_oracle::Picture;

use crate::head::Case;

pub fn of(case: &Case, dtype: DType) -> Picture {
    let shape = *case.layout.shape();
    let tensor = |values: &[f64], size: &[usize]| {
        Tensor::from_slice(values, size, &Device::Cpu)
            .and_then(|tensor| tensor.to_dtype(dtype))
            .unwrap()
    };
    let (height, width) = (shape.mask_height, shape.mask_width);
    let mut shares = vec![0.0; PARTS * shape.score_cells()];
    for (index, &label) in case.labels.iter().enumerate().filter(|(_, label)| **label != 255) {
        let (y, x) = (index / (4 * width), index % (4 * width));
        shares[usize::from(label) * shape.score_cells() + y / 2 * 2 * width + x / 2] += 1.0 / 4.0;
    }
    Picture {
        queries: tensor(&case.queries, &[shape.queries, shape.dim]),
        memories: [
            tensor(&case.memory_a, &[shape.tokens(0), shape.dim]),
            tensor(&case.memory_b, &[shape.tokens(1), shape.dim]),
        ],
        mask_features: tensor(&case.mask_features, &[shape.dim, height, width]),
        shares: tensor(&shares, &[PARTS, shape.score_cells()]),
    }
}
