//! Forward and backward passes of projections, layer norms and attention, on row-major slices.

use super::layout::{Attention, HEADS, HeadLayout, Norm, Projection, Subset};
use super::real::{Real, View, ViewMut, product};

/// Added to the variance of a layer norm, as the trainer's framework does by default.
const NORM_EPSILON: f64 = 1e-5;

/// Sums of gradients in the places of the flat parameter vector.
#[derive(Clone, Debug)]
pub struct Gradients<R> {
    /// One value per parameter; places that are not trained stay zero.
    pub values: Vec<R>,
    /// Whether the weights of projections are trained; biases, norms and the class head always are.
    weights: bool,
}

impl<R: Real> Gradients<R> {
    /// Zeros for every parameter of a layout; `subset` says which are worked out.
    pub fn new(layout: &HeadLayout, subset: Subset) -> Gradients<R> {
        Gradients { values: vec![R::ZERO; layout.len()], weights: subset == Subset::Full }
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        self.values.fill(R::ZERO);
    }
}

/// A projection `x W + b` with its parameters.
pub(super) struct Linear<'a, R> {
    pub at: &'a Projection,
    pub parameters: &'a [R],
    pub inputs: usize,
    pub outputs: usize,
}

impl<R: Real> Linear<'_, R> {
    fn weight(&self) -> View<'_, R> {
        View::new(&self.parameters[self.at.weight.clone()], self.inputs, self.outputs)
    }

    /// (rows, inputs) to (rows, outputs).
    pub fn forward(&self, x: &[R], rows: usize) -> Vec<R> {
        let mut y = Vec::with_capacity(rows * self.outputs);
        match &self.at.bias {
            Some(bias) => {
                let bias = &self.parameters[bias.clone()];
                (0..rows).for_each(|_| y.extend_from_slice(bias));
            }
            None => y.resize(rows * self.outputs, R::ZERO),
        }
        let to = ViewMut::new(&mut y, rows, self.outputs);
        product(R::ONE, View::new(x, rows, self.inputs), self.weight(), R::ONE, to);
        y
    }

    /// Adds the parameters' gradients; `weights` says whether the weight's is wanted.
    pub fn backward_parameters(
        &self,
        x: &[R],
        dy: &[R],
        rows: usize,
        weights: bool,
        gradients: &mut Gradients<R>,
    ) {
        if weights {
            let to = &mut gradients.values[self.at.weight.clone()];
            let to = ViewMut::new(to, self.inputs, self.outputs);
            let x = View::new(x, rows, self.inputs).t();
            product(R::ONE, x, View::new(dy, rows, self.outputs), R::ONE, to);
        }
        if let Some(bias) = &self.at.bias {
            add_column_sums(dy, &mut gradients.values[bias.clone()]);
        }
    }

    /// The gradient of the input, (rows, inputs).
    pub fn backward_input(&self, dy: &[R], rows: usize) -> Vec<R> {
        let mut dx = vec![R::ZERO; rows * self.inputs];
        let to = ViewMut::new(&mut dx, rows, self.inputs);
        product(R::ONE, View::new(dy, rows, self.outputs), self.weight().t(), R::ZERO, to);
        dx
    }

    /// Adds the gradients of the parameters, and returns that of the input, (rows, inputs).
    pub fn backward(&self, x: &[R], dy: &[R], rows: usize, gradients: &mut Gradients<R>) -> Vec<R> {
        self.backward_parameters(x, dy, rows, gradients.weights, gradients);
        self.backward_input(dy, rows)
    }
}

/// Adds every row to `sums`.
pub(super) fn add_column_sums<R: Real>(rows: &[R], sums: &mut [R]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += value);
    }
}

/// `a + b`, element by element.
pub(super) fn sum<R: Real>(a: &[R], b: &[R]) -> Vec<R> {
    a.iter().zip(b).map(|(&a, &b)| a + b).collect()
}

/// `a += b`, element by element.
pub(super) fn add_to<R: Real>(a: &mut [R], b: &[R]) {
    a.iter_mut().zip(b).for_each(|(a, &b)| *a += b);
}

pub(super) fn relu<R: Real>(mut x: Vec<R>) -> Vec<R> {
    x.iter_mut().for_each(|value| *value = value.max(R::ZERO));
    x
}

/// Zeroes the gradient where the activation was cut off.
pub(super) fn relu_backward<R: Real>(y: &[R], dy: &mut [R]) {
    for (dy, &y) in dy.iter_mut().zip(y) {
        if y <= R::ZERO {
            *dy = R::ZERO;
        }
    }
}

/// What a layer norm keeps for its backward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct NormCache<R> {
    /// Inputs with mean 0 and variance 1, (rows, dim).
    standard: Vec<R>,
    /// 1 / sqrt(variance + epsilon), per row.
    inverse: Vec<R>,
}

/// Layer norm over rows of width `dim`.
pub(super) fn layer_norm<R: Real>(x: &[R], at: &Norm, parameters: &[R]) -> (Vec<R>, NormCache<R>) {
    let (scale, offset) = (&parameters[at.scale.clone()], &parameters[at.offset.clone()]);
    let dim = scale.len();
    let count = R::from_f64(dim as f64);
    let mut y = Vec::with_capacity(x.len());
    let mut cache = NormCache { standard: Vec::with_capacity(x.len()), inverse: Vec::new() };
    for row in x.chunks_exact(dim) {
        let mean = row.iter().copied().sum::<R>() / count;
        let variance = row.iter().map(|&v| (v - mean) * (v - mean)).sum::<R>() / count;
        let inverse = R::ONE / (variance + R::from_f64(NORM_EPSILON)).sqrt();
        cache.inverse.push(inverse);
        for ((&value, &scale), &offset) in row.iter().zip(scale).zip(offset) {
            let standard = (value - mean) * inverse;
            cache.standard.push(standard);
            y.push(standard * scale + offset);
        }
    }
    (y, cache)
}

/// Adds the parameters' gradients, gives the input's.
pub(super) fn layer_norm_backward<R: Real>(
    dy: &[R],
    cache: &NormCache<R>,
    at: &Norm,
    parameters: &[R],
    gradients: &mut Gradients<R>,
) -> Vec<R> {
    let scale = &parameters[at.scale.clone()];
    let dim = scale.len();
    let count = R::from_f64(dim as f64);
    add_column_sums(dy, &mut gradients.values[at.offset.clone()]);
    let products: Vec<R> = dy.iter().zip(&cache.standard).map(|(&dy, &s)| dy * s).collect();
    add_column_sums(&products, &mut gradients.values[at.scale.clone()]);
    let mut dx = Vec::with_capacity(dy.len());
    let rows = dy.chunks_exact(dim).zip(cache.standard.chunks_exact(dim)).zip(&cache.inverse);
    for ((dy, standard), &inverse) in rows {
        // With g = dy scale: dx = inverse (g - mean(g) - standard mean(g standard)).
        let mean = dy.iter().zip(scale).map(|(&dy, &s)| dy * s).sum::<R>() / count;
        let pairs = dy.iter().zip(scale).zip(standard);
        let slope = pairs.map(|((&dy, &scale), &s)| dy * scale * s).sum::<R>() / count;
        let pairs = dy.iter().zip(scale).zip(standard);
        dx.extend(pairs.map(|((&dy, &scale), &s)| inverse * (dy * scale - mean - s * slope)));
    }
    dx
}

/// What attention keeps for its backward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct AttentionCache<R> {
    /// Scaled queries, (queries, dim).
    query: Vec<R>,
    key: Vec<R>,
    value: Vec<R>,
    /// Attention weights, (heads, queries, tokens).
    weights: Vec<R>,
    /// Values mixed by them, (queries, dim).
    mixed: Vec<R>,
}

/// The inputs of one attention.
#[derive(Clone, Copy)]
pub(super) struct AttentionInputs<'a, R> {
    /// (queries, dim).
    pub query: &'a [R],
    /// (tokens, dim).
    pub key: &'a [R],
    /// (tokens, dim).
    pub value: &'a [R],
    pub queries: usize,
    pub tokens: usize,
    pub dim: usize,
}

/// Gradients of the three inputs.
pub(super) struct AttentionInputGradients<R> {
    /// (queries, dim).
    pub query: Vec<R>,
    /// Of key and value, (tokens, dim) each, where they are wanted.
    pub memory: Option<[Vec<R>; 2]>,
}

/// Multi-head attention; `hidden` (queries, tokens) marks what a query may not see.
pub(super) struct MultiHead<'a, R> {
    pub at: &'a Attention,
    pub parameters: &'a [R],
    pub dim: usize,
}

impl<R: Real> MultiHead<'_, R> {
    fn linear<'b>(&'b self, at: &'b Projection) -> Linear<'b, R> {
        Linear { at, parameters: self.parameters, inputs: self.dim, outputs: self.dim }
    }

    fn scale(&self) -> R {
        R::from_f64(((self.dim / HEADS) as f64).powf(-0.5))
    }

    pub fn forward(
        &self,
        inputs: AttentionInputs<'_, R>,
        hidden: Option<&[bool]>,
    ) -> (Vec<R>, AttentionCache<R>) {
        let AttentionInputs { queries, tokens, dim, .. } = inputs;
        let depth = dim / HEADS;
        let mut query = self.linear(&self.at.query).forward(inputs.query, queries);
        let scale = self.scale();
        query.iter_mut().for_each(|value| *value = *value * scale);
        let key = self.linear(&self.at.key).forward(inputs.key, tokens);
        let value = self.linear(&self.at.value).forward(inputs.value, tokens);
        let mut weights = vec![R::ZERO; HEADS * queries * tokens];
        let mut mixed = vec![R::ZERO; queries * dim];
        for (head, weights) in weights.chunks_exact_mut(queries * tokens).enumerate() {
            let part = |data, rows| View::new(data, rows, dim).columns(head * depth, depth);
            let to = ViewMut::new(&mut *weights, queries, tokens);
            product(R::ONE, part(&query, queries), part(&key, tokens).t(), R::ZERO, to);
            for (index, row) in weights.chunks_exact_mut(tokens).enumerate() {
                softmax(row, hidden.map(|hidden| &hidden[index * tokens..][..tokens]));
            }
            let to = ViewMut::new(&mut mixed, queries, dim).columns(head * depth, depth);
            product(R::ONE, View::new(weights, queries, tokens), part(&value, tokens), R::ZERO, to);
        }
        let out = self.linear(&self.at.out).forward(&mixed, queries);
        (out, AttentionCache { query, key, value, weights, mixed })
    }

    /// Adds the parameters' gradients. `memory` says whether the gradients of key and value inputs are wanted.
    pub fn backward(
        &self,
        dy: &[R],
        inputs: AttentionInputs<'_, R>,
        cache: &AttentionCache<R>,
        memory: bool,
        gradients: &mut Gradients<R>,
    ) -> AttentionInputGradients<R> {
        let AttentionInputs { queries, tokens, dim, .. } = inputs;
        let depth = dim / HEADS;
        let dmixed = self.linear(&self.at.out).backward(&cache.mixed, dy, queries, gradients);
        let wide = memory || gradients.weights;
        let mut dquery = vec![R::ZERO; queries * dim];
        let mut dkey = vec![R::ZERO; if wide { tokens * dim } else { 0 }];
        let mut dvalue = dkey.clone();
        let mut dscores = vec![R::ZERO; queries * tokens];
        for (head, weights) in cache.weights.chunks_exact(queries * tokens).enumerate() {
            let part = |data, rows| View::new(data, rows, dim).columns(head * depth, depth);
            let part_mut = |data, rows| ViewMut::new(data, rows, dim).columns(head * depth, depth);
            let weights_view = View::new(weights, queries, tokens);
            let to = ViewMut::new(&mut dscores, queries, tokens);
            product(R::ONE, part(&dmixed, queries), part(&cache.value, tokens).t(), R::ZERO, to);
            softmax_backward(weights, &mut dscores, tokens);
            let dscores = View::new(&dscores, queries, tokens);
            let to = part_mut(&mut dquery, queries);
            product(self.scale(), dscores, part(&cache.key, tokens), R::ZERO, to);
            if wide {
                let to = part_mut(&mut dvalue, tokens);
                product(R::ONE, weights_view.t(), part(&dmixed, queries), R::ZERO, to);
                let to = part_mut(&mut dkey, tokens);
                product(R::ONE, dscores.t(), part(&cache.query, queries), R::ZERO, to);
            }
        }
        let query = self.linear(&self.at.query).backward(inputs.query, &dquery, queries, gradients);
        let (key, value) = (self.linear(&self.at.key), self.linear(&self.at.value));
        if !wide {
            // Every row of attention weights sums to one, so the value bias receives the sum of dmixed.
            if let Some(bias) = &self.at.value.bias {
                add_column_sums(&dmixed, &mut gradients.values[bias.clone()]);
            }
            return AttentionInputGradients { query, memory: None };
        }
        let weights = gradients.weights;
        key.backward_parameters(inputs.key, &dkey, tokens, weights, gradients);
        value.backward_parameters(inputs.value, &dvalue, tokens, weights, gradients);
        let inputs = || [key.backward_input(&dkey, tokens), value.backward_input(&dvalue, tokens)];
        AttentionInputGradients { query, memory: memory.then(inputs) }
    }
}

/// Softmax of one row in place; hidden entries become zero. At least one entry must be seen.
pub(super) fn softmax<R: Real>(row: &mut [R], hidden: Option<&[bool]>) {
    let is_hidden = |index: usize| hidden.is_some_and(|hidden| hidden[index]);
    let mut largest = R::from_f64(f64::NEG_INFINITY);
    for (index, &value) in row.iter().enumerate() {
        if !is_hidden(index) {
            largest = largest.max(value);
        }
    }
    let mut total = R::ZERO;
    for (index, value) in row.iter_mut().enumerate() {
        *value = if is_hidden(index) { R::ZERO } else { (*value - largest).exp() };
        total += *value;
    }
    let inverse = R::ONE / total;
    row.iter_mut().for_each(|value| *value = *value * inverse);
}

/// Turns gradients of softmax outputs into those of its inputs, row by row, in place.
pub(super) fn softmax_backward<R: Real>(outputs: &[R], gradients: &mut [R], width: usize) {
    for (p, dp) in outputs.chunks_exact(width).zip(gradients.chunks_exact_mut(width)) {
        let mean = p.iter().zip(&*dp).map(|(&p, &dp)| p * dp).sum::<R>();
        dp.iter_mut().zip(p).for_each(|(dp, &p)| *dp = p * (*dp - mean));
    }
}
