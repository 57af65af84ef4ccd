//! Random heads and pictures of any size.

use learn::head::{Features, HeadLayout, HeadShape, Target, TrunkOutput};

/// The student's sizes.
pub const STUDENT: HeadShape =
    HeadShape { queries: 28, dim: 96, hidden: 384, mask_height: 64, mask_width: 48 };

/// Small enough for a finite difference of every parameter.
pub const SMALL: HeadShape =
    HeadShape { queries: 5, dim: 8, hidden: 12, mask_height: 12, mask_width: 8 };

/// xorshift64*, with a normal distribution by the polar method.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                return u * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }

    pub fn normals(&mut self, count: usize, scale: f64) -> Vec<f64> {
        (0..count).map(|_| scale * self.normal()).collect()
    }
}

/// A head with random parameters, one picture, and a mask in coarse patches with an unlabelled corner.
pub struct Case {
    pub layout: HeadLayout,
    pub parameters: Vec<f64>,
    pub queries: Vec<f64>,
    pub memory_a: Vec<f64>,
    pub memory_b: Vec<f64>,
    pub mask_features: Vec<f64>,
    pub labels: Vec<u8>,
    pub features: Features<f64>,
    pub target: Target<f64>,
}

impl Case {
    pub fn new(shape: HeadShape, seed: u64) -> Case {
        let layout = HeadLayout::of_shape(shape).unwrap();
        let mut random = Random::new(seed);
        let mut parameters = Vec::new();
        for spec in layout.specs() {
            let count = spec.shape.iter().product();
            let is_scale = spec.name.contains("norm") && spec.name.ends_with("weight");
            let (centre, scale) = match spec.shape.as_slice() {
                [inputs, _] => (0.0, (*inputs as f64).powf(-0.5)),
                [_] if is_scale => (1.0, 0.1),
                _ => (0.0, 0.1),
            };
            parameters.extend(random.normals(count, scale).into_iter().map(|value| value + centre));
        }
        let queries = random.normals(shape.queries * shape.dim, 1.0);
        let memory_a = random.normals(shape.tokens(0) * shape.dim, 1.0);
        let memory_b = random.normals(shape.tokens(1) * shape.dim, 1.0);
        let mask_features = random.normals(shape.cells() * shape.dim, 0.5);
        let (height, width) = (4 * shape.mask_height, 4 * shape.mask_width);
        let patch: Vec<u8> = (0..36).map(|_| (random.unit() * 16.0) as u8).collect();
        let label = |index: usize| {
            let (y, x) = (index / width, index % width);
            if y < 5 && x < 7 { 255 } else { patch[6 * (y * 6 / height) + x * 6 / width] }
        };
        let labels: Vec<u8> = (0..height * width).map(label).collect();
        let trunk = TrunkOutput {
            queries: &queries,
            memory_a: &memory_a,
            memory_b: &memory_b,
            mask_features: &mask_features,
        };
        let features = Features::new(&layout, &parameters, trunk).unwrap();
        let target = Target::new(&shape, &labels, height, width).unwrap();
        Case {
            layout,
            parameters,
            queries,
            memory_a,
            memory_b,
            mask_features,
            labels,
            features,
            target,
        }
    }

    /// The same picture and mask in single precision.
    pub fn single(&self) -> (Features<f32>, Target<f32>) {
        let narrow =
            |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<f32>>();
        let shape = self.layout.shape();
        let (queries, memory_a) = (narrow(&self.queries), narrow(&self.memory_a));
        let (memory_b, mask_features) = (narrow(&self.memory_b), narrow(&self.mask_features));
        let trunk = TrunkOutput {
            queries: &queries,
            memory_a: &memory_a,
            memory_b: &memory_b,
            mask_features: &mask_features,
        };
        let parameters = narrow(&self.parameters);
        let features = Features::new(&self.layout, &parameters, trunk).unwrap();
        let (height, width) = (4 * shape.mask_height, 4 * shape.mask_width);
        (features, Target::new(shape, &self.labels, height, width).unwrap())
    }
}
