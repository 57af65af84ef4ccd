//! A network's graphs at another input size than they were exported at.
//!
//! The convolutions and the decoder take any size. Only three things in the graphs say one: the declared shapes, the
//! position embeddings, and the reshape that gives the mask logits. All follow from the size.

use std::f64::consts::TAU;

use tract_onnx::pb;

use crate::error::ModelError;
use crate::geometry::GridSize;
use crate::manifest::ParameterInfo;

/// Largest difference between a position embedding as exported and as it is worked out here.
const TOLERANCE: f32 = 1e-4;

/// Input pixels that one token of a memory spans, by the name of the memory's position embedding.
const POSITIONS: [(&str, usize); 3] = [("position", 32), ("position_a", 16), ("position_b", 8)];

fn stride_of(name: &str) -> Option<usize> {
    POSITIONS.iter().find(|(known, _)| *known == name).map(|(_, stride)| *stride)
}

fn cells(grid: GridSize, stride: usize) -> GridSize {
    GridSize { height: grid.height / stride, width: grid.width / stride }
}

/// Shapes of a head's parameters at another input size: those of the position embeddings follow it.
pub(crate) fn resize_parameters(layout: &mut [ParameterInfo], to: GridSize) {
    for info in layout {
        if let (Some(stride), [_, tokens, _]) = (stride_of(&info.name), info.shape.as_mut_slice()) {
            *tokens = cells(to, stride).area();
        }
    }
}

/// Changes a graph from one input size to another.
///
/// # Errors
/// [`ModelError::Shape`] naming what in the graph is not as the export writes it.
pub(crate) fn resize(
    file: &str,
    proto: &mut pb::ModelProto,
    from: GridSize,
    to: GridSize,
) -> Result<(), ModelError> {
    let wrong = |what: String| ModelError::Shape { file: file.into(), what };
    let graph = proto.graph.as_mut().ok_or_else(|| wrong("it has no graph".into()))?;
    for tensor in &mut graph.initializer {
        if let Some(stride) = stride_of(&tensor.name) {
            let place = [cells(from, stride), cells(to, stride)];
            replace_position(tensor, place).map_err(wrong)?;
        }
    }
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        resize_value(value, to);
    }
    resize_mask_logits(graph, to).map_err(wrong)
}

/// A position embedding is the sines of its grid plus one offset for all of its tokens, which stays.
fn replace_position(tensor: &mut pb::TensorProto, [from, to]: [GridSize; 2]) -> Result<(), String> {
    let name = &tensor.name;
    let dim = tensor.dims.last().map_or(0, |&dim| dim as usize);
    let values = floats(tensor);
    if dim == 0 || !dim.is_multiple_of(4) || values.len() != from.area() * dim {
        return Err(format!("{name} has {} values of width {dim}", values.len()));
    }
    let sines = sine_position(from, dim);
    let offset: Vec<f32> = values.iter().zip(&sines).take(dim).map(|(v, s)| v - s).collect();
    let expected = sines.iter().zip(offset.iter().cycle()).map(|(sine, offset)| sine + offset);
    if values.iter().zip(expected).any(|(value, wanted)| (value - wanted).abs() > TOLERANCE) {
        return Err(format!("{name} is not sines and an offset; this size is not served"));
    }
    let placed = sine_position(to, dim);
    let placed = placed.iter().zip(offset.iter().cycle()).map(|(sine, offset)| sine + offset);
    tensor.raw_data = placed.flat_map(f32::to_le_bytes).collect();
    tensor.float_data.clear();
    tensor.dims = vec![1, to.area() as i64, dim as i64];
    Ok(())
}

/// Sine position embedding, tokens x dim: for rows then columns, `dim / 4` sines and as many cosines of the relative
/// place (0 to 1), whose frequencies fall from 2 pi in geometric steps towards 2 pi / 10,000 (Vaswani et al. 2017).
fn sine_position(grid: GridSize, dim: usize) -> Vec<f32> {
    let bands = dim / 4;
    let frequency = |band: usize| TAU * 10_000f64.powf(-(band as f64) / bands as f64);
    let waves = |index: usize, length: usize| {
        let place = (index as f64 + 0.5) / length as f64;
        let sines = (0..bands).map(move |band| (place * frequency(band)).sin());
        sines.chain((0..bands).map(move |band| (place * frequency(band)).cos()))
    };
    let token = |y: usize, x: usize| waves(y, grid.height).chain(waves(x, grid.width));
    let tokens = (0..grid.height).flat_map(|y| (0..grid.width).map(move |x| (y, x)));
    tokens.flat_map(|(y, x)| token(y, x)).map(|value| value as f32).collect()
}

/// The values of a float tensor.
pub(crate) fn floats(tensor: &pb::TensorProto) -> Vec<f32> {
    if tensor.raw_data.is_empty() {
        return tensor.float_data.clone();
    }
    tensor.raw_data.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

/// The declared shape of an input or output.
fn resize_value(value: &mut pb::ValueInfoProto, to: GridSize) {
    let masks = cells(to, 4);
    let sizes: &[usize] = match value.name.as_str() {
        "pixels" => &[to.height, to.width],
        "mask_features" | "mask_logits" => &[masks.height, masks.width],
        "memory_a" => &[cells(to, 16).area()],
        "memory_b" => &[cells(to, 8).area()],
        _ => return,
    };
    let Some(pb::type_proto::Value::TensorType(tensor)) =
        value.r#type.as_mut().and_then(|kind| kind.value.as_mut())
    else {
        return;
    };
    let Some(shape) = tensor.shape.as_mut() else { return };
    // Batch comes first, then a memory's tokens, or the channels before height and width.
    let first = if sizes.len() == 1 { 1 } else { 2 };
    for (dimension, &size) in shape.dim.iter_mut().skip(first).zip(sizes) {
        let size = pb::tensor_shape_proto::dimension::Value::DimValue(size as i64);
        dimension.value = Some(size);
    }
}

/// The reshape at the end of the head, the only one whose result has rows and columns.
fn resize_mask_logits(graph: &mut pb::GraphProto, to: GridSize) -> Result<(), String> {
    let Some(last) = writer(graph, "mask_logits") else { return Ok(()) };
    let shape = graph.node[last].input.get(1).and_then(|name| writer(graph, name));
    let Some(tensor) = shape
        .and_then(|at| graph.node[at].attribute.first_mut())
        .and_then(|attribute| attribute.t.as_mut())
    else {
        return Err("mask_logits is not made by a reshape to a constant shape".into());
    };
    let masks = cells(to, 4);
    let sizes = [masks.height as i64, masks.width as i64];
    if tensor.raw_data.len() == 32 {
        let bytes = sizes.iter().flat_map(|size| size.to_le_bytes());
        tensor.raw_data.splice(16.., bytes);
    } else if let [_, _, rows, columns] = tensor.int64_data.as_mut_slice() {
        [*rows, *columns] = sizes;
    } else {
        return Err("mask_logits is not reshaped to four dimensions".into());
    }
    Ok(())
}

/// Which node gives a tensor.
fn writer(graph: &pb::GraphProto, name: &str) -> Option<usize> {
    graph.node.iter().position(|node| node.output.iter().any(|output| output == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_sines_of_the_relative_place() {
        let grid = GridSize { height: 2, width: 1 };
        let values = sine_position(grid, 8);
        assert_eq!(values.len(), 2 * 8);
        // Row 0 of 2 is at a quarter of the height, column 0 of 1 in the middle; the second frequency is a hundredth.
        let quarter = TAU / 4.0;
        let half = TAU / 2.0;
        let wanted = [
            quarter.sin(),
            (quarter / 100.0).sin(),
            quarter.cos(),
            (quarter / 100.0).cos(),
            half.sin(),
            (half / 100.0).sin(),
            half.cos(),
            (half / 100.0).cos(),
        ];
        for (value, wanted) in values.iter().zip(wanted) {
            assert!((f64::from(*value) - wanted).abs() < 1e-6, "{value} {wanted}");
        }
    }

    #[test]
    fn an_embedding_that_is_no_sines_is_refused() {
        let grid = GridSize { height: 2, width: 2 };
        let mut values = sine_position(grid, 8);
        values.iter_mut().for_each(|value| *value += 0.5);
        let tensor = |values: &[f32]| pb::TensorProto {
            name: "position".into(),
            dims: vec![1, 4, 8],
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        };
        let wide = GridSize { height: 1, width: 3 };
        let mut good = tensor(&values);
        replace_position(&mut good, [grid, wide]).expect("sines and an offset");
        assert_eq!(good.dims, [1, 3, 8]);
        let wanted: Vec<f32> = sine_position(wide, 8).iter().map(|sine| sine + 0.5).collect();
        assert!(floats(&good).iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6));
        values[13] += 0.01;
        let error = replace_position(&mut tensor(&values), [grid, wide]).expect_err("changed");
        assert!(error.contains("position"), "{error}");
    }
}
