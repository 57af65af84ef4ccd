//! The head: the last two decoder layers, the class head and the mask embedding, forward and backward.
//!
//! The same computation as the model's head graph. Each layer is masked cross-attention to a memory, self-attention
//! and a feed-forward step, each added and normalised (Cheng et al. 2022, Mask2Former). A query sees only the memory
//! cells inside its own mask of the step before, unless that hides everything; no gradient passes through that choice,
//! and none into the trunk.

use super::layout::{HeadLayout, HeadShape, Layer, POOLING, Projection};
use super::ops::{
    AttentionCache, AttentionInputs, Gradients, Linear, MultiHead, NormCache, add_to, layer_norm,
    layer_norm_backward, relu, relu_backward, sum,
};
use super::real::{Real, View, ViewMut, product};

/// What the trunk hands to the head for one picture.
#[derive(Clone, Copy, Debug)]
pub struct TrunkOutput<'a, R> {
    /// Queries after the first decoder layer, (queries, dim).
    pub queries: &'a [R],
    /// Memory of the first trained layer, (tokens, dim), without position.
    pub memory_a: &'a [R],
    /// Memory of the second, (tokens, dim), without position.
    pub memory_b: &'a [R],
    /// Mask features, (dim, mask_height x mask_width).
    pub mask_features: &'a [R],
}

/// A trunk output of the wrong size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {actual} values instead of {expected}; trunk and head are of different models")]
pub struct SizeError {
    /// Which input.
    pub what: &'static str,
    /// Values needed.
    pub expected: usize,
    /// Values given.
    pub actual: usize,
}

/// One picture's trunk outputs with everything that does not depend on trained parameters worked out.
#[derive(Clone, Debug)]
pub struct Features<R> {
    queries: Vec<R>,
    memories: [Memory<R>; 2],
    mask_features: Vec<R>,
}

#[derive(Clone, Debug)]
struct Memory<R> {
    tokens: usize,
    /// (tokens, dim).
    values: Vec<R>,
    /// `values` with the position embedding added.
    keys: Vec<R>,
    /// Mask features averaged onto the memory's grid, (dim, tokens).
    pooled: Vec<R>,
}

impl<R: Real> Features<R> {
    /// Checks the sizes and prepares a picture. `parameters` is the flat vector, of which only constants are used.
    pub fn new(
        layout: &HeadLayout,
        parameters: &[R],
        trunk: TrunkOutput<'_, R>,
    ) -> Result<Features<R>, SizeError> {
        let shape = layout.shape();
        let check = |what, actual, expected| {
            if actual == expected { Ok(()) } else { Err(SizeError { what, expected, actual }) }
        };
        let memories = [trunk.memory_a, trunk.memory_b];
        check("the parameter vector", parameters.len(), layout.len())?;
        check("queries", trunk.queries.len(), shape.queries * shape.dim)?;
        check("memory_a", trunk.memory_a.len(), shape.tokens(0) * shape.dim)?;
        check("memory_b", trunk.memory_b.len(), shape.tokens(1) * shape.dim)?;
        check("mask_features", trunk.mask_features.len(), shape.cells() * shape.dim)?;
        let memory = |index: usize| Memory {
            tokens: shape.tokens(index),
            values: memories[index].to_vec(),
            keys: sum(memories[index], &parameters[layout.layers[index].position.clone()]),
            pooled: pool(trunk.mask_features, shape, POOLING[index]),
        };
        Ok(Features {
            queries: trunk.queries.to_vec(),
            memories: [memory(0), memory(1)],
            mask_features: trunk.mask_features.to_vec(),
        })
    }
}

/// Averages each channel over `factor` x `factor` cells.
fn pool<R: Real>(features: &[R], shape: &HeadShape, factor: usize) -> Vec<R> {
    let (height, width) = (shape.mask_height / factor, shape.mask_width / factor);
    let share = R::ONE / R::from_f64((factor * factor) as f64);
    let mut pooled = vec![R::ZERO; shape.dim * height * width];
    for (channel, to) in
        features.chunks_exact(shape.cells()).zip(pooled.chunks_exact_mut(height * width))
    {
        for (y, row) in channel.chunks_exact(shape.mask_width).enumerate() {
            for (x, &value) in row.iter().enumerate() {
                to[y / factor * width + x / factor] += value * share;
            }
        }
    }
    pooled
}

/// The head's answer for one picture.
#[derive(Clone, Debug)]
pub struct Prediction<R> {
    /// (queries, 18).
    pub class_logits: Vec<R>,
    /// (queries, mask_height x mask_width).
    pub mask_logits: Vec<R>,
}

/// What the forward pass keeps for the backward pass.
#[derive(Clone, Debug)]
pub(crate) struct Activations<R> {
    layers: Vec<LayerCache<R>>,
    predictor: PredictorCache<R>,
}

#[derive(Clone, Debug)]
struct LayerCache<R> {
    /// Input of the cross-attention's query, (queries, dim).
    cross_input: Vec<R>,
    cross: AttentionCache<R>,
    norm_cross: NormCache<R>,
    /// Output of the first norm, and the same with the query position.
    crossed: Vec<R>,
    own_input: Vec<R>,
    own: AttentionCache<R>,
    norm_own: NormCache<R>,
    /// Output of the second norm.
    settled: Vec<R>,
    /// After the ReLU, (queries, hidden).
    expanded: Vec<R>,
    norm_out: NormCache<R>,
}

#[derive(Clone, Debug)]
struct PredictorCache<R> {
    norm: NormCache<R>,
    /// Normalised queries, and the mask embedding's steps after their ReLUs.
    normed: Vec<R>,
    first: Vec<R>,
    second: Vec<R>,
}

/// The head with one set of parameters.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a, R> {
    layout: &'a HeadLayout,
    parameters: &'a [R],
}

impl<'a, R: Real> Network<'a, R> {
    /// `parameters` is the flat vector of `layout`, constants included.
    pub fn new(layout: &'a HeadLayout, parameters: &'a [R]) -> Result<Network<'a, R>, SizeError> {
        if parameters.len() != layout.len() {
            let (expected, actual) = (layout.len(), parameters.len());
            return Err(SizeError { what: "the parameter vector", expected, actual });
        }
        Ok(Network { layout, parameters })
    }

    /// The sizes.
    pub fn shape(&self) -> &'a HeadShape {
        self.layout.shape()
    }

    /// Class and mask logits.
    pub fn predict(&self, features: &Features<R>) -> Prediction<R> {
        self.forward(features).0
    }

    /// Class and mask logits, with what a backward pass needs.
    pub(crate) fn forward(&self, features: &Features<R>) -> (Prediction<R>, Activations<R>) {
        let shape = self.layout.shape();
        let mut x = features.queries.clone();
        let (mut predictor, mut embedding) = self.embed(&x);
        let mut layers = Vec::with_capacity(features.memories.len());
        for (layer, memory) in self.layout.layers.iter().zip(&features.memories) {
            let hidden = self.hidden(&embedding, memory);
            let (y, cache) = self.layer_forward(layer, &x, memory, &hidden);
            layers.push(cache);
            x = y;
            (predictor, embedding) = self.embed(&x);
        }
        let class_logits = self.class_head().forward(&predictor.normed, shape.queries);
        let mut mask_logits = vec![R::ZERO; shape.queries * shape.cells()];
        let to = ViewMut::new(&mut mask_logits, shape.queries, shape.cells());
        let embedding = View::new(&embedding, shape.queries, shape.dim);
        let masks = View::new(&features.mask_features, shape.dim, shape.cells());
        product(R::ONE, embedding, masks, R::ZERO, to);
        (Prediction { class_logits, mask_logits }, Activations { layers, predictor })
    }

    /// Adds the gradients of one picture, given those of its class and mask logits.
    pub(crate) fn backward(
        &self,
        features: &Features<R>,
        activations: &Activations<R>,
        outputs: &Prediction<R>,
        gradients: &mut Gradients<R>,
    ) {
        let shape = self.layout.shape();
        let mut dembedding = vec![R::ZERO; shape.queries * shape.dim];
        let to = ViewMut::new(&mut dembedding, shape.queries, shape.dim);
        let dmasks = View::new(&outputs.mask_logits, shape.queries, shape.cells());
        let masks = View::new(&features.mask_features, shape.dim, shape.cells());
        product(R::ONE, dmasks, masks.t(), R::ZERO, to);

        let cache = &activations.predictor;
        let [first, second, third] = self.mask_embedding();
        let mut d = third.backward(&cache.second, &dembedding, shape.queries, gradients);
        relu_backward(&cache.second, &mut d);
        let mut d = second.backward(&cache.first, &d, shape.queries, gradients);
        relu_backward(&cache.first, &mut d);
        let mut dnormed = first.backward(&cache.normed, &d, shape.queries, gradients);
        let class_head = self.class_head();
        let dclasses = &outputs.class_logits;
        // The class head's weight is trained in every subset.
        class_head.backward_parameters(&cache.normed, dclasses, shape.queries, true, gradients);
        add_to(&mut dnormed, &class_head.backward_input(dclasses, shape.queries));
        let norm = &self.layout.norm;
        let mut dx = layer_norm_backward(&dnormed, &cache.norm, norm, self.parameters, gradients);

        let layers = self.layout.layers.iter().zip(&features.memories).zip(&activations.layers);
        for ((layer, memory), cache) in layers.rev() {
            dx = self.layer_backward(layer, memory, cache, dx, gradients);
        }
    }

    fn linear(&self, at: &'a Projection, inputs: usize, outputs: usize) -> Linear<'a, R> {
        Linear { at, parameters: self.parameters, inputs, outputs }
    }

    fn class_head(&self) -> Linear<'a, R> {
        self.linear(&self.layout.class_head, self.layout.shape().dim, super::layout::CLASSES)
    }

    fn mask_embedding(&self) -> [Linear<'a, R>; 3] {
        let dim = self.layout.shape().dim;
        self.layout.mask_embedding.each_ref().map(|at| self.linear(at, dim, dim))
    }

    fn query_position(&self) -> &'a [R] {
        &self.parameters[self.layout.query_position.clone()]
    }

    /// Final norm and mask embedding of queries, (queries, dim).
    fn embed(&self, x: &[R]) -> (PredictorCache<R>, Vec<R>) {
        let rows = self.layout.shape().queries;
        let (normed, norm) = layer_norm(x, &self.layout.norm, self.parameters);
        let [first, second, third] = self.mask_embedding();
        let first = relu(first.forward(&normed, rows));
        let second = relu(second.forward(&first, rows));
        let embedding = third.forward(&second, rows);
        (PredictorCache { norm, normed, first, second }, embedding)
    }

    /// Which memory cells each query may not see, (queries, tokens).
    fn hidden(&self, embedding: &[R], memory: &Memory<R>) -> Vec<bool> {
        let shape = self.layout.shape();
        let mut logits = vec![R::ZERO; shape.queries * memory.tokens];
        let to = ViewMut::new(&mut logits, shape.queries, memory.tokens);
        let embedding = View::new(embedding, shape.queries, shape.dim);
        let pooled = View::new(&memory.pooled, shape.dim, memory.tokens);
        product(R::ONE, embedding, pooled, R::ZERO, to);
        let mut hidden: Vec<bool> = logits.iter().map(|&logit| logit < R::ZERO).collect();
        for row in hidden.chunks_exact_mut(memory.tokens) {
            if row.iter().all(|&hidden| hidden) {
                row.fill(false);
            }
        }
        hidden
    }

    fn attention(&self, at: &'a super::layout::Attention) -> MultiHead<'a, R> {
        MultiHead { at, parameters: self.parameters, dim: self.layout.shape().dim }
    }

    fn cross_inputs<'b>(&self, query: &'b [R], memory: &'b Memory<R>) -> AttentionInputs<'b, R> {
        let HeadShape { queries, dim, .. } = *self.layout.shape();
        let (key, value) = (memory.keys.as_slice(), memory.values.as_slice());
        AttentionInputs { query, key, value, queries, tokens: memory.tokens, dim }
    }

    fn own_inputs<'b>(&self, placed: &'b [R], value: &'b [R]) -> AttentionInputs<'b, R> {
        let HeadShape { queries, dim, .. } = *self.layout.shape();
        AttentionInputs { query: placed, key: placed, value, queries, tokens: queries, dim }
    }

    fn layer_forward(
        &self,
        layer: &'a Layer,
        x: &[R],
        memory: &Memory<R>,
        hidden: &[bool],
    ) -> (Vec<R>, LayerCache<R>) {
        let HeadShape { queries, dim, hidden: width, .. } = *self.layout.shape();
        let cross_input = sum(x, self.query_position());
        let inputs = self.cross_inputs(&cross_input, memory);
        let (attended, cross) = self.attention(&layer.cross).forward(inputs, Some(hidden));
        let (crossed, norm_cross) =
            layer_norm(&sum(x, &attended), &layer.norm_cross, self.parameters);

        let own_input = sum(&crossed, self.query_position());
        let inputs = self.own_inputs(&own_input, &crossed);
        let (attended, own) = self.attention(&layer.own).forward(inputs, None);
        let (settled, norm_own) =
            layer_norm(&sum(&crossed, &attended), &layer.norm_own, self.parameters);

        let expanded = relu(self.linear(&layer.expand, dim, width).forward(&settled, queries));
        let contracted = self.linear(&layer.contract, width, dim).forward(&expanded, queries);
        let (y, norm_out) =
            layer_norm(&sum(&settled, &contracted), &layer.norm_out, self.parameters);
        let cache = LayerCache {
            cross_input,
            cross,
            norm_cross,
            crossed,
            own_input,
            own,
            norm_own,
            settled,
            expanded,
            norm_out,
        };
        (y, cache)
    }

    fn layer_backward(
        &self,
        layer: &'a Layer,
        memory: &Memory<R>,
        cache: &LayerCache<R>,
        dy: Vec<R>,
        gradients: &mut Gradients<R>,
    ) -> Vec<R> {
        let HeadShape { queries, dim, hidden: width, .. } = *self.layout.shape();
        let parameters = self.parameters;
        // Feed-forward step.
        let mut d =
            layer_norm_backward(&dy, &cache.norm_out, &layer.norm_out, parameters, gradients);
        let contract = self.linear(&layer.contract, width, dim);
        let mut dexpanded = contract.backward(&cache.expanded, &d, queries, gradients);
        relu_backward(&cache.expanded, &mut dexpanded);
        let expand = self.linear(&layer.expand, dim, width);
        add_to(&mut d, &expand.backward(&cache.settled, &dexpanded, queries, gradients));
        // Self-attention: the query position is a constant, so query and key inputs pass straight to `crossed`.
        let mut d =
            layer_norm_backward(&d, &cache.norm_own, &layer.norm_own, parameters, gradients);
        let inputs = self.own_inputs(&cache.own_input, &cache.crossed);
        let own = self.attention(&layer.own).backward(&d, inputs, &cache.own, true, gradients);
        add_to(&mut d, &own.query);
        own.memory.iter().flatten().for_each(|part| add_to(&mut d, part));
        // Cross-attention: the memory is the trunk's and takes no gradient.
        let mut d =
            layer_norm_backward(&d, &cache.norm_cross, &layer.norm_cross, parameters, gradients);
        let inputs = self.cross_inputs(&cache.cross_input, memory);
        let cross =
            self.attention(&layer.cross).backward(&d, inputs, &cache.cross, false, gradients);
        add_to(&mut d, &cross.query);
        d
    }
}
