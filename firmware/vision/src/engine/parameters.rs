//! The head's numbers.

use std::ops::Range;
use std::sync::Arc;

use tract_onnx::pb;

use super::shape;
use crate::error::ModelError;
use crate::geometry::GridSize;
use crate::manifest::ParameterInfo;
use crate::sizes;

/// The head's numbers as one flat vector, with the layout that names them.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadParameters {
    /// Input size that the constants belong to.
    pub(super) grid: GridSize,
    layout: Arc<[ParameterInfo]>,
    values: Vec<f32>,
}

impl HeadParameters {
    /// Tensors in order.
    pub fn layout(&self) -> &[ParameterInfo] {
        &self.layout
    }

    /// All values, tensors one after the other, each row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The numbers that training may change, in order: the same for every input size, which only the constants follow.
    pub fn trainable(&self) -> Vec<f32> {
        self.trainable_ranges().flat_map(|range| self.values[range].iter().copied()).collect()
    }

    /// These constants with other trainable numbers ([`HeadParameters::trainable`]).
    ///
    /// # Errors
    /// [`ModelError::Parameters`] for another length or a value that is not finite.
    pub fn with_trainable(&self, trainable: &[f32]) -> Result<HeadParameters, ModelError> {
        let wanted: usize = self.trainable_ranges().map(|range| range.len()).sum();
        if trainable.len() != wanted {
            let given = trainable.len();
            return Err(ModelError::Parameters(format!(
                "{given} trainable values were given, the head has {wanted}"
            )));
        }
        let (mut values, mut rest) = (self.values.clone(), trainable);
        for range in self.trainable_ranges() {
            let (now, later) = rest.split_at(range.len());
            values[range].copy_from_slice(now);
            rest = later;
        }
        self.with_values(values)
    }

    fn trainable_ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.ranges().filter_map(|(info, range)| info.trainable.then_some(range))
    }

    /// Every tensor in order, and where its values lie.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (&ParameterInfo, Range<usize>)> {
        self.layout.iter().scan(0, |at, info| {
            let range = *at..*at + info.len();
            *at = range.end;
            Some((info, range))
        })
    }

    /// These tensors with other values.
    ///
    /// # Errors
    /// [`ModelError::Parameters`] for another length, a value that is not finite, or a changed constant.
    pub fn with_values(&self, values: Vec<f32>) -> Result<HeadParameters, ModelError> {
        if values.len() != self.values.len() {
            let (given, wanted) = (values.len(), self.values.len());
            return Err(ModelError::Parameters(format!(
                "{given} values were given, the head has {wanted}"
            )));
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(ModelError::Parameters("a value is not a finite number".into()));
        }
        let is_changed = |range: Range<usize>| values[range.clone()] != self.values[range];
        for (info, range) in self.ranges() {
            if !info.trainable && is_changed(range) {
                return Err(ModelError::Parameters(format!(
                    "{} is a constant and must stay",
                    info.name
                )));
            }
        }
        Ok(HeadParameters { layout: self.layout.clone(), values, ..*self })
    }
}

/// The head's initializers in the layout's order.
pub(super) fn read_parameters(
    file: &str,
    grid: GridSize,
    layout: &[ParameterInfo],
    proto: &pb::ModelProto,
) -> Result<HeadParameters, ModelError> {
    let initializers = proto.graph.as_ref().map_or(&[][..], |g| &g.initializer[..]);
    let mut values = Vec::new();
    for info in layout {
        let tensor = initializers
            .iter()
            .find(|t| t.name == info.name)
            .ok_or_else(|| shape(file, format!("it has no tensor {}", info.name)))?;
        let before = values.len();
        values.extend(sizes::floats(tensor));
        let same_shape = tensor.dims.iter().map(|&d| d as usize).eq(info.shape.iter().copied());
        if !same_shape || values.len() - before != info.len() {
            return Err(shape(
                file,
                format!("{} is {:?}, the manifest says {:?}", info.name, tensor.dims, info.shape),
            ));
        }
    }
    if values.iter().any(|v| !v.is_finite()) {
        return Err(shape(file, "a parameter is not a finite number"));
    }
    Ok(HeadParameters { grid, layout: layout.into(), values })
}
