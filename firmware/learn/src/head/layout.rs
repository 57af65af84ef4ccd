//! The head's parameters as one flat vector: names, shapes, places, and which of them move.

use std::collections::HashMap;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::numbers;
use crate::edges::{Digest, LayoutId};

/// Class logits of a query: sixteen parts, whole human, no object.
pub const CLASSES: usize = 18;

/// Part classes, background included.
pub const PARTS: usize = 16;

/// Attention heads of every decoder layer.
pub const HEADS: usize = 4;

/// The decoder layers of the head, as numbered in the parameters' names.
pub const LAYERS: [usize; 2] = [1, 2];

/// Mask-feature cells that one memory cell covers along a side, for the two layers.
pub const POOLING: [usize; 2] = [4, 2];

/// The group of a parameter, as the model's manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Bias of a projection.
    Bias,
    /// Scale or offset of a layer norm.
    Norm,
    /// Weight or bias of the class head.
    ClassHead,
    /// Weight of any other projection.
    Weight,
}

impl Group {
    /// Reads the manifest's word.
    fn from_name(name: &str) -> Option<Group> {
        match name {
            "bias" => Some(Group::Bias),
            "norm" => Some(Group::Norm),
            "class_head" => Some(Group::ClassHead),
            "weight" => Some(Group::Weight),
            _ => None,
        }
    }
}

/// One parameter of the flat vector, in the manifest's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Its name in the graph.
    pub name: String,
    /// Its shape; projections are (inputs, outputs).
    pub shape: Vec<usize>,
    /// Its group, or `None` for a constant such as a position embedding.
    pub group: Option<Group>,
}

impl ParameterSpec {
    /// A parameter as the model's manifest lists it: its name in the graph, its shape, and the word for its group. Without a word that
    /// names a group it is a constant, and refused by [`HeadLayout::new`] where it should be trained. Mirrors and fleet read it by this
    /// alone: a difference would give their layouts another [`HeadLayout::id`], and no update would fit.
    pub fn of(name: &str, shape: &[usize], group: Option<&str>) -> ParameterSpec {
        let group = group.and_then(Group::from_name);
        ParameterSpec { name: name.to_owned(), shape: shape.to_vec(), group }
    }
}

/// Which parameters training may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    /// Biases, layer norms and the class head: a few thousand numbers, so that noise drowns them least.
    Sparse,
    /// Everything trainable: the two decoder layers, the class head, the mask embedding.
    Full,
}

impl Subset {
    fn contains(self, group: Option<Group>) -> bool {
        match self {
            Subset::Sparse => matches!(group, Some(Group::Bias | Group::Norm | Group::ClassHead)),
            Subset::Full => group.is_some(),
        }
    }
}

/// Why a list of parameters is not this head's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A parameter is missing.
    #[error("the model's head has no parameter {0}; this firmware cannot train it")]
    Missing(String),
    /// A parameter is listed twice or is not one of this head's.
    #[error(
        "the model's head has a parameter {0} that this firmware does not know; it cannot train the head"
    )]
    Unknown(String),
    /// A shape is not the expected one.
    #[error(
        "{name} has shape {actual:?} instead of {expected:?}; this firmware cannot train the head"
    )]
    Shape {
        /// The parameter.
        name: String,
        /// Needed.
        expected: Vec<usize>,
        /// Found.
        actual: Vec<usize>,
    },
    /// The mask features' grid does not fit the memories.
    #[error("mask features of {height} x {width} cells do not fit memories of {memories:?} tokens")]
    Grid {
        /// Rows of the mask features.
        height: usize,
        /// Columns of the mask features.
        width: usize,
        /// Tokens of the two memories.
        memories: [usize; 2],
    },
}

/// The sizes of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Queries.
    pub queries: usize,
    /// Width of a query.
    pub dim: usize,
    /// Width of the feed-forward layers.
    pub hidden: usize,
    /// Rows of the mask features.
    pub mask_height: usize,
    /// Columns of the mask features.
    pub mask_width: usize,
}

impl HeadShape {
    /// Cells of the mask features.
    pub fn cells(&self) -> usize {
        self.mask_height * self.mask_width
    }

    /// Rows and columns of the scores, twice those of the mask features: masks are enlarged before they become scores.
    pub fn score_size(&self) -> (usize, usize) {
        (2 * self.mask_height, 2 * self.mask_width)
    }

    /// Cells of the scores.
    pub fn score_cells(&self) -> usize {
        let (height, width) = self.score_size();
        height * width
    }

    /// Tokens of the memory of the layer at `index` (0 or 1).
    pub fn tokens(&self, index: usize) -> usize {
        (self.mask_height / POOLING[index]) * (self.mask_width / POOLING[index])
    }

    /// Every parameter and constant of a head of these sizes, in the order that the model's export uses.
    pub fn specs(&self) -> Vec<ParameterSpec> {
        let HeadShape { dim, hidden, queries, .. } = *self;
        let mut specs = Vec::new();
        for layer in LAYERS {
            for attention in ["cross", "own"] {
                for (role, bias) in
                    [("query", true), ("key", false), ("value", true), ("out", true)]
                {
                    projection(
                        &mut specs,
                        &format!("layers.{layer}.{attention}.{role}"),
                        dim,
                        dim,
                        bias,
                    );
                }
            }
            projection(&mut specs, &format!("layers.{layer}.expand"), dim, hidden, true);
            projection(&mut specs, &format!("layers.{layer}.contract"), hidden, dim, true);
            for norm in ["norm_cross", "norm_own", "norm_out"] {
                layer_norm(&mut specs, &format!("layers.{layer}.{norm}"), dim);
            }
        }
        layer_norm(&mut specs, "predictor.norm", dim);
        for part in ["weight", "bias"] {
            let shape = if part == "weight" { vec![dim, CLASSES] } else { vec![CLASSES] };
            push(&mut specs, format!("predictor.class_head.{part}"), shape, Some(Group::ClassHead));
        }
        for step in ["first", "second", "third"] {
            projection(&mut specs, &format!("predictor.mask_embedding.{step}"), dim, dim, true);
        }
        push(&mut specs, "query_position".to_owned(), vec![1, queries, dim], None);
        push(&mut specs, "position_a".to_owned(), vec![1, self.tokens(0), dim], None);
        push(&mut specs, "position_b".to_owned(), vec![1, self.tokens(1), dim], None);
        specs
    }
}

fn push(specs: &mut Vec<ParameterSpec>, name: String, shape: Vec<usize>, group: Option<Group>) {
    specs.push(ParameterSpec { name, shape, group });
}

fn projection(
    specs: &mut Vec<ParameterSpec>,
    name: &str,
    inputs: usize,
    outputs: usize,
    bias: bool,
) {
    push(specs, format!("{name}.weight"), vec![inputs, outputs], Some(Group::Weight));
    if bias {
        push(specs, format!("{name}.bias"), vec![outputs], Some(Group::Bias));
    }
}

fn layer_norm(specs: &mut Vec<ParameterSpec>, name: &str, dim: usize) {
    for part in ["weight", "bias"] {
        push(specs, format!("{name}.{part}"), vec![dim], Some(Group::Norm));
    }
}

/// A projection's places; `None` for a bias that does not exist.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
}

#[derive(Clone, Debug)]
pub(super) struct Norm {
    pub scale: Range<usize>,
    pub offset: Range<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub query: Projection,
    pub key: Projection,
    pub value: Projection,
    pub out: Projection,
}

#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub cross: Attention,
    pub own: Attention,
    pub expand: Projection,
    pub contract: Projection,
    pub norm_cross: Norm,
    pub norm_own: Norm,
    pub norm_out: Norm,
    pub position: Range<usize>,
}

/// Where every parameter lies in the flat vector.
#[derive(Clone, Debug)]
pub struct HeadLayout {
    shape: HeadShape,
    specs: Vec<ParameterSpec>,
    offsets: Vec<usize>,
    pub(super) layers: [Layer; 2],
    pub(super) norm: Norm,
    pub(super) class_head: Projection,
    pub(super) mask_embedding: [Projection; 3],
    pub(super) query_position: Range<usize>,
}

impl HeadLayout {
    /// The layout of a head with these sizes, in the export's own order.
    pub fn of_shape(shape: HeadShape) -> Result<HeadLayout, LayoutError> {
        HeadLayout::new(shape.specs(), shape.mask_height, shape.mask_width)
    }

    /// The layout that a model's manifest lists, in the manifest's order; mask features have `mask_height` x
    /// `mask_width` cells.
    pub fn new(
        specs: Vec<ParameterSpec>,
        mask_height: usize,
        mask_width: usize,
    ) -> Result<HeadLayout, LayoutError> {
        let mut offset = 0;
        let mut places = HashMap::new();
        let mut offsets = Vec::with_capacity(specs.len());
        for spec in &specs {
            let length = spec.shape.iter().product::<usize>();
            offsets.push(offset);
            if places.insert(spec.name.as_str(), offset..offset + length).is_some() {
                return Err(LayoutError::Unknown(spec.name.clone()));
            }
            offset += length;
        }
        let shape = read_shape(&specs, mask_height, mask_width)?;
        check_specs(&specs, &shape)?;
        let place = Places(&places);
        Ok(HeadLayout {
            shape,
            layers: [place.layer(LAYERS[0], "position_a")?, place.layer(LAYERS[1], "position_b")?],
            norm: place.norm("predictor.norm")?,
            class_head: place.projection("predictor.class_head")?,
            mask_embedding: [
                place.projection("predictor.mask_embedding.first")?,
                place.projection("predictor.mask_embedding.second")?,
                place.projection("predictor.mask_embedding.third")?,
            ],
            query_position: place.find("query_position")?,
            offsets,
            specs,
        })
    }

    /// The sizes.
    pub fn shape(&self) -> &HeadShape {
        &self.shape
    }

    /// The parameters, in order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// Length of the flat vector, constants included.
    pub fn len(&self) -> usize {
        self.specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// Never: a head has parameters.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// The places of a subset in the flat vector, in order, neighbours joined.
    pub fn ranges(&self, subset: Subset) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for (spec, &start) in self.specs.iter().zip(&self.offsets) {
            if !subset.contains(spec.group) {
                continue;
            }
            let end = start + spec.shape.iter().product::<usize>();
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// Numbers in a subset.
    pub fn subset_len(&self, subset: Subset) -> usize {
        self.ranges(subset).iter().map(ExactSizeIterator::len).sum()
    }

    /// The subset's values out of a flat vector, in order.
    pub fn gather<T: Copy>(&self, subset: Subset, flat: &[T]) -> Vec<T> {
        // At its full size from the start: what grows leaves copies of a household's numbers behind.
        let mut values = Vec::with_capacity(self.subset_len(subset));
        self.ranges(subset).into_iter().for_each(|range| values.extend_from_slice(&flat[range]));
        values
    }

    /// Puts the subset's values back into a flat vector. `values` has [`HeadLayout::subset_len`] elements.
    pub fn scatter<T: Copy>(&self, subset: Subset, values: &[T], flat: &mut [T]) {
        assert_eq!(values.len(), self.subset_len(subset), "values of another subset");
        let mut rest = values;
        for range in self.ranges(subset) {
            let (now, later) = rest.split_at(range.len());
            flat[range].copy_from_slice(now);
            rest = later;
        }
    }

    /// SHA-256 of every trainable number as little-endian f32, in the layout's order: what devices and fleet call a
    /// model. `parameters` is the flat vector.
    pub fn digest(&self, parameters: &[f32]) -> Digest {
        let values = self.gather(Subset::Full, parameters);
        let mut bytes = Vec::with_capacity(4 * values.len());
        numbers::encode_into(&mut bytes, &values);
        Digest::of(&bytes)
    }

    /// What an update of this subset belongs to: the base model, and every name and shape in order.
    ///
    /// `model` is the base model's [`HeadLayout::digest`].
    pub fn id(&self, subset: Subset, model: &[u8; 32]) -> LayoutId {
        let mut hash = Sha256::new();
        hash.update(b"mirror head layout 1\n");
        hash.update(model);
        for spec in self.specs.iter().filter(|spec| subset.contains(spec.group)) {
            hash.update(format!("{} {:?}\n", spec.name, spec.shape));
        }
        LayoutId(hash.finalize().into())
    }
}

fn read_shape(
    specs: &[ParameterSpec],
    mask_height: usize,
    mask_width: usize,
) -> Result<HeadShape, LayoutError> {
    let size = |name: &str, axis: usize| {
        let spec = specs.iter().find(|spec| spec.name == name);
        let size = spec.and_then(|spec| spec.shape.get(axis).copied());
        size.ok_or_else(|| LayoutError::Missing(name.to_owned()))
    };
    let shape = HeadShape {
        queries: size("query_position", 1)?,
        dim: size("query_position", 2)?,
        hidden: size("layers.1.expand.weight", 1)?,
        mask_height,
        mask_width,
    };
    let memories = [size("position_a", 1)?, size("position_b", 1)?];
    let whole = mask_height.is_multiple_of(POOLING[0]) && mask_width.is_multiple_of(POOLING[0]);
    let fits = (0..2).all(|index| shape.tokens(index) == memories[index] && memories[index] > 0);
    if !whole || !fits || !shape.dim.is_multiple_of(HEADS) || shape.dim == 0 {
        return Err(LayoutError::Grid { height: mask_height, width: mask_width, memories });
    }
    Ok(shape)
}

fn check_specs(specs: &[ParameterSpec], shape: &HeadShape) -> Result<(), LayoutError> {
    let expected = shape.specs();
    for wanted in &expected {
        let found = specs.iter().find(|spec| spec.name == wanted.name);
        let found = found.ok_or_else(|| LayoutError::Missing(wanted.name.clone()))?;
        if found.shape != wanted.shape || found.group != wanted.group {
            return Err(LayoutError::Shape {
                name: wanted.name.clone(),
                expected: wanted.shape.clone(),
                actual: found.shape.clone(),
            });
        }
    }
    let strange = specs.iter().find(|spec| expected.iter().all(|known| known.name != spec.name));
    strange.map_or(Ok(()), |spec| Err(LayoutError::Unknown(spec.name.clone())))
}

struct Places<'a>(&'a HashMap<&'a str, Range<usize>>);

impl Places<'_> {
    fn find(&self, name: &str) -> Result<Range<usize>, LayoutError> {
        self.0.get(name).cloned().ok_or_else(|| LayoutError::Missing(name.to_owned()))
    }

    fn projection(&self, name: &str) -> Result<Projection, LayoutError> {
        let bias = self.0.get(format!("{name}.bias").as_str()).cloned();
        Ok(Projection { weight: self.find(&format!("{name}.weight"))?, bias })
    }

    fn norm(&self, name: &str) -> Result<Norm, LayoutError> {
        let part = |part: &str| self.find(&format!("{name}.{part}"));
        Ok(Norm { scale: part("weight")?, offset: part("bias")? })
    }

    fn attention(&self, name: &str) -> Result<Attention, LayoutError> {
        let part = |part: &str| self.projection(&format!("{name}.{part}"));
        Ok(Attention {
            query: part("query")?,
            key: part("key")?,
            value: part("value")?,
            out: part("out")?,
        })
    }

    fn layer(&self, number: usize, position: &str) -> Result<Layer, LayoutError> {
        let name = |part: &str| format!("layers.{number}.{part}");
        Ok(Layer {
            cross: self.attention(&name("cross"))?,
            own: self.attention(&name("own"))?,
            expand: self.projection(&name("expand"))?,
            contract: self.projection(&name("contract"))?,
            norm_cross: self.norm(&name("norm_cross"))?,
            norm_own: self.norm(&name("norm_own"))?,
            norm_out: self.norm(&name("norm_out"))?,
            position: self.find(position)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The student's sizes.
    const STUDENT: HeadShape =
        HeadShape { queries: 28, dim: 96, hidden: 384, mask_height: 64, mask_width: 48 };

    #[test]
    fn the_students_head_has_the_expected_numbers() {
        let layout = HeadLayout::of_shape(STUDENT).unwrap();
        assert_eq!(layout.subset_len(Subset::Sparse), 5_490);
        assert_eq!(layout.subset_len(Subset::Full), 328_050);
        assert_eq!((STUDENT.tokens(0), STUDENT.tokens(1)), (192, 768));
    }

    #[test]
    fn gather_and_scatter_are_inverse_and_touch_nothing_else() {
        let layout = HeadLayout::of_shape(STUDENT).unwrap();
        let flat: Vec<u32> = (0..layout.len() as u32).collect();
        let values = layout.gather(Subset::Sparse, &flat);
        let mut target = vec![u32::MAX; flat.len()];
        layout.scatter(Subset::Sparse, &values, &mut target);
        assert_eq!(layout.gather(Subset::Sparse, &target), values);
        let untouched = target.iter().filter(|&&value| value == u32::MAX).count();
        assert_eq!(untouched, flat.len() - 5_490);
    }

    #[test]
    fn what_a_manifest_says_of_a_parameter_is_read() {
        let word = |spec: &ParameterSpec| {
            Some(match spec.group? {
                Group::Bias => "bias",
                Group::Norm => "norm",
                Group::ClassHead => "class_head",
                Group::Weight => "weight",
            })
        };
        for spec in STUDENT.specs() {
            assert_eq!(ParameterSpec::of(&spec.name, &spec.shape, word(&spec)), spec);
        }
        let mut strange = STUDENT.specs();
        strange[0] = ParameterSpec::of(&strange[0].name, &strange[0].shape, Some("Weight"));
        assert_eq!(strange[0].group, None);
        assert!(HeadLayout::new(strange, 64, 48).is_err(), "a constant that should be trained");
    }

    #[test]
    fn another_order_is_read_and_has_another_id() {
        let mut specs = STUDENT.specs();
        specs.swap(0, 5);
        let swapped = HeadLayout::new(specs, 64, 48).unwrap();
        let plain = HeadLayout::of_shape(STUDENT).unwrap();
        assert_ne!(swapped.id(Subset::Full, &[0; 32]), plain.id(Subset::Full, &[0; 32]));
        assert_ne!(plain.id(Subset::Sparse, &[0; 32]), plain.id(Subset::Full, &[0; 32]));
        assert_ne!(plain.id(Subset::Full, &[1; 32]), plain.id(Subset::Full, &[0; 32]));
    }

    #[test]
    fn a_foreign_head_is_refused_by_name() {
        let mut missing = STUDENT.specs();
        missing.retain(|spec| spec.name != "layers.2.own.key.weight");
        let error = HeadLayout::new(missing, 64, 48).unwrap_err();
        assert_eq!(error, LayoutError::Missing("layers.2.own.key.weight".to_owned()));

        let mut extra = STUDENT.specs();
        push(&mut extra, "layers.3.expand.bias".to_owned(), vec![1], Some(Group::Bias));
        assert!(matches!(HeadLayout::new(extra, 64, 48), Err(LayoutError::Unknown(_))));

        let mut shape = STUDENT.specs();
        shape[0].shape = vec![96, 95];
        assert!(matches!(HeadLayout::new(shape, 64, 48), Err(LayoutError::Shape { .. })));
        assert!(matches!(HeadLayout::new(STUDENT.specs(), 64, 32), Err(LayoutError::Grid { .. })));
    }
}
