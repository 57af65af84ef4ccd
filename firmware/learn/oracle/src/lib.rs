//! The head, written a second time over candle's tensors and automatic differentiation.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use learn::head::{HEADS, HeadLayout, LAYERS, PARTS, POOLING};

const NORM_EPSILON: f64 = 1e-5;
const FLOOR: f64 = 1e-3;
const TOTAL_WEIGHT: f64 = 0.3;
const SMOOTHING: f64 = 1.0;

/// The parameters as candle variables, in the layout's order.
pub struct Oracle {
    layout: HeadLayout,
    variables: Vec<Var>,
}

/// One picture and its target shares, as tensors.
pub struct Picture {
    pub queries: Tensor,
    pub memories: [Tensor; 2],
    /// (dim, height, width).
    pub mask_features: Tensor,
    /// (parts, cells of the scores).
    pub shares: Tensor,
}

impl Oracle {
    /// Copies a flat vector into variables of type `dtype`.
    pub fn new(layout: &HeadLayout, parameters: &[f64], dtype: DType) -> Result<Oracle> {
        let mut start = 0;
        let mut variables = Vec::new();
        for spec in layout.specs() {
            let count: usize = spec.shape.iter().product();
            let values = Tensor::from_slice(
                &parameters[start..start + count],
                spec.shape.as_slice(),
                &Device::Cpu,
            )?;
            variables.push(Var::from_tensor(&values.to_dtype(dtype)?)?);
            start += count;
        }
        Ok(Oracle { layout: layout.clone(), variables })
    }

    fn get(&self, name: &str) -> &Tensor {
        let index = self.layout.specs().iter().position(|spec| spec.name == name);
        self.variables[index.expect("a parameter of the layout")].as_tensor()
    }

    fn linear(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let y = x.matmul(self.get(&format!("{name}.weight")))?;
        if name.ends_with(".key") {
            Ok(y)
        } else {
            y.broadcast_add(self.get(&format!("{name}.bias")))
        }
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let standard = centred.broadcast_div(&(variance + NORM_EPSILON)?.sqrt()?)?;
        standard
            .broadcast_mul(self.get(&format!("{name}.weight")))?
            .broadcast_add(self.get(&format!("{name}.bias")))
    }

    fn attention(
        &self,
        name: &str,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (queries, dim) = query.dims2()?;
        let depth = dim / HEADS;
        let split = |x: Tensor| x.reshape(((), HEADS, depth))?.transpose(0, 1)?.contiguous();
        let q =
            split((self.linear(query, &format!("{name}.query"))? * (depth as f64).powf(-0.5))?)?;
        let k = split(self.linear(key, &format!("{name}.key"))?)?;
        let v = split(self.linear(value, &format!("{name}.value"))?)?;
        let mut scores = q.matmul(&k.transpose(1, 2)?.contiguous()?)?;
        if let Some(bias) = bias {
            scores = scores.broadcast_add(&bias.unsqueeze(0)?)?;
        }
        let mixed = softmax(&scores)?.matmul(&v)?.transpose(0, 1)?.reshape((queries, dim))?;
        self.linear(&mixed, &format!("{name}.out"))
    }

    fn embed(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let normed = self.norm(x, "predictor.norm")?;
        let mut y = normed.clone();
        for step in ["first", "second"] {
            y = self.linear(&y, &format!("predictor.mask_embedding.{step}"))?.relu()?;
        }
        Ok((normed, self.linear(&y, "predictor.mask_embedding.third")?))
    }

    fn layer(&self, number: usize, x: &Tensor, memory: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let name = |part: &str| format!("layers.{number}.{part}");
        let place = self.get("query_position").squeeze(0)?;
        let position =
            self.get(if number == LAYERS[0] { "position_a" } else { "position_b" }).squeeze(0)?;
        let keys = (memory + position)?;
        let attended = self.attention(&name("cross"), &(x + &place)?, &keys, memory, Some(bias))?;
        let x = self.norm(&(x + attended)?, &name("norm_cross"))?;
        let placed = (&x + &place)?;
        let attended = self.attention(&name("own"), &placed, &placed, &x, None)?;
        let x = self.norm(&(x + attended)?, &name("norm_own"))?;
        let expanded = self.linear(&x, &name("expand"))?.relu()?;
        let contracted = self.linear(&expanded, &name("contract"))?;
        self.norm(&(x + contracted)?, &name("norm_out"))
    }

    /// Loss of one picture as a differentiable scalar.
    pub fn loss(&self, picture: &Picture) -> Result<Tensor> {
        let (dim, height, width) = picture.mask_features.dims3()?;
        let features = picture.mask_features.reshape((dim, height * width))?;
        let mut x = picture.queries.clone();
        let (mut normed, mut embedding) = self.embed(&x)?;
        for (index, memory) in picture.memories.iter().enumerate() {
            let pooled = picture.mask_features.unsqueeze(0)?.avg_pool2d(POOLING[index])?;
            let pooled = pooled.reshape((dim, ()))?;
            let hidden = embedding.detach().matmul(&pooled)?.lt(0.0)?.to_dtype(x.dtype())?;
            let some_seen = (1.0 - hidden.min_keepdim(1)?)?;
            let bias = (hidden.broadcast_mul(&some_seen)? * -1e4)?;
            x = self.layer(LAYERS[index], &x, memory, &bias)?;
            (normed, embedding) = self.embed(&x)?;
        }
        let logits = self.linear(&normed, "predictor.class_head")?;
        let masks = embedding.matmul(&features)?;
        let masks = enlarged(&masks.reshape(((), height, width))?)?;
        let sigmoid = (masks.neg()?.exp()? + 1.0)?.recip()?;
        let parts = softmax(&logits)?.narrow(1, 0, PARTS)?.t()?.contiguous()?;
        let scores = (parts.matmul(&sigmoid)? + FLOOR)?;
        let totals = scores.sum_keepdim(0)?;
        let likely = scores.broadcast_div(&totals)?;
        let shares = &picture.shares;
        let entropy = ((shares * likely.log()?)?.sum_all()?.neg()? / shares.sum_all()?)?;
        let weights = shares.sum_keepdim(0)?;
        let overlap = (&likely * shares)?.sum(1)?;
        let mass = (likely.broadcast_mul(&weights)? + shares)?.sum(1)?;
        let dice = (1.0 - (((overlap * 2.0)? + SMOOTHING)? / (mass + SMOOTHING)?)?)?.mean_all()?;
        let apart = ((totals.log()?.sqr()? * &weights)?.sum_all()? / shares.sum_all()?)?;
        (entropy + dice)? + (apart * TOTAL_WEIGHT)?
    }

    /// Loss and the gradient of every trainable parameter, flat, in the layout's order; constants give nothing.
    pub fn gradient(&self, picture: &Picture) -> Result<(f64, Vec<f64>)> {
        let loss = self.loss(picture)?;
        let store = loss.backward()?;
        let mut flat = Vec::new();
        for (spec, variable) in self.layout.specs().iter().zip(&self.variables) {
            if spec.group.is_some() {
                let gradient = store.get(variable).expect("every parameter is used");
                flat.extend(gradient.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?);
            }
        }
        Ok((loss.to_dtype(DType::F64)?.to_scalar()?, flat))
    }
}

/// Planes (count, height, width) at twice their size, bilinear with aligned pixel centres, as (count, cells): candle has no such
/// operation that gradients go through, so it is a product with the weights of each direction.
fn enlarged(planes: &Tensor) -> Result<Tensor> {
    let (count, height, width) = planes.dims3()?;
    let along = |length: usize| {
        let mut weights = vec![0.0; 2 * length * length];
        for large in 0..2 * length {
            let place = ((large as f64 + 0.5) / 2.0 - 0.5).clamp(0.0, (length - 1) as f64);
            let (low, share) = (place as usize, place.fract());
            weights[large * length + low] += 1.0 - share;
            weights[large * length + (low + 1).min(length - 1)] += share;
        }
        Tensor::from_vec(weights, (2 * length, length), planes.device())?.to_dtype(planes.dtype())
    };
    let wide = planes.broadcast_matmul(&along(width)?.t()?)?;
    along(height)?.broadcast_matmul(&wide)?.reshape((count, 4 * height * width))
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
}
