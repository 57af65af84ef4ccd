//! What is let in: graphs of known operators, with the digest, inputs and outputs that their manifest promises.

use proto::taxonomy::CLASS_COUNT;
use sha2::{Digest, Sha256};
use tract_onnx::pb;
use tract_onnx::prelude::Framework;

use super::{load_error, shape};
use crate::error::ModelError;
use crate::geometry::GridSize;
use crate::manifest::{Graph, Manifest, TensorInfo};

/// Operators that were checked against onnxruntime in tract 0.23.9. A graph with any other is refused: some
/// combinations load and then compute the wrong thing.
const ALLOWED_OPS: [&str; 19] = [
    "Add",
    "AveragePool",
    "Cast",
    "Constant",
    "Conv",
    "DequantizeLinear",
    "LayerNormalization",
    "Less",
    "MatMul",
    "Mul",
    "QLinearConv",
    "QuantizeLinear",
    "ReduceMin",
    "Relu",
    "Reshape",
    "Resize",
    "Softmax",
    "Sub",
    "Transpose",
];

/// Names of what the trunk hands to the head, in the trunk's output order.
pub(super) const HANDED_ON: [&str; 4] = ["queries", "memory_a", "memory_b", "mask_features"];

/// Size of the masks for an input of this size.
pub(super) fn mask_size(grid: GridSize) -> GridSize {
    GridSize { height: grid.height / 4, width: grid.width / 4 }
}

/// Inputs and outputs as the rest of this crate expects them; gives the number of queries.
pub(super) fn check_interfaces(manifest: &Manifest) -> Result<usize, ModelError> {
    let grid = manifest.grid();
    let GridSize { height: h, width: w } = mask_size(grid);
    let (trunk, head) = (&manifest.trunk, &manifest.head);
    let find = |list: &[TensorInfo], name: &str| list.iter().find(|t| t.name == name).cloned();
    let wanted_input = TensorInfo {
        name: "pixels".into(),
        shape: vec![1, 3, grid.height, grid.width],
        dtype: "u8".into(),
    };
    if trunk.input != [wanted_input] {
        return Err(shape(
            &trunk.file,
            format!("its input is not pixels u8 [1, 3, {}, {}]", grid.height, grid.width),
        ));
    }
    for name in HANDED_ON {
        let given = find(&trunk.output, name);
        if given.is_none() || given != find(&head.input, name) {
            return Err(shape(&head.file, format!("{name} differs between trunk and head")));
        }
    }
    if trunk.output.len() != HANDED_ON.len() || head.input.len() != HANDED_ON.len() {
        return Err(shape(
            &head.file,
            "trunk and head exchange other tensors than queries, memories and features",
        ));
    }
    let outputs: Vec<(&str, &[usize])> =
        head.output.iter().map(|t| (t.name.as_str(), t.shape.as_slice())).collect();
    match outputs[..] {
        [("class_logits", &[1, queries, CLASS_COUNT]), ("mask_logits", masks)]
            if *masks == [1, queries, h, w] =>
        {
            Ok(queries)
        }
        _ => Err(shape(
            &head.file,
            format!(
                "its outputs are not class_logits [1, Q, {CLASS_COUNT}] and mask_logits [1, Q, {h}, {w}]"
            ),
        )),
    }
}

/// Parses a graph after checking its digest, its operators and its interface against the manifest.
pub(super) fn checked_graph(graph: &Graph, bytes: &[u8]) -> Result<pb::ModelProto, ModelError> {
    let found: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    if found != graph.sha256 {
        return Err(ModelError::Digest {
            file: graph.file.clone(),
            found,
            wanted: graph.sha256.clone(),
        });
    }
    let proto = tract_onnx::onnx()
        .proto_model_for_read(&mut &bytes[..])
        .map_err(|e| load_error(&graph.file, &format!("{e:#}")))?;
    let inner = proto.graph.as_ref().ok_or_else(|| shape(&graph.file, "it has no graph"))?;
    for node in &inner.node {
        let known = ALLOWED_OPS.contains(&node.op_type.as_str()) && node.domain.is_empty();
        if !known || !graph.ops.contains(&node.op_type) {
            return Err(ModelError::Operator {
                file: graph.file.clone(),
                op: node.op_type.clone(),
            });
        }
    }
    for (given, promised) in [(&inner.input, &graph.input), (&inner.output, &graph.output)] {
        check_values(&graph.file, given, promised)?;
    }
    Ok(proto)
}

fn check_values(
    file: &str,
    given: &[pb::ValueInfoProto],
    promised: &[TensorInfo],
) -> Result<(), ModelError> {
    let found: Vec<(String, Option<Vec<usize>>)> =
        given.iter().map(|v| (v.name.clone(), static_shape(v))).collect();
    let wanted: Vec<(String, Option<Vec<usize>>)> =
        promised.iter().map(|t| (t.name.clone(), Some(t.shape.clone()))).collect();
    if found == wanted {
        return Ok(());
    }
    Err(shape(file, format!("the file has {found:?}, the manifest promises {wanted:?}")))
}

fn static_shape(value: &pb::ValueInfoProto) -> Option<Vec<usize>> {
    let Some(pb::type_proto::Value::TensorType(tensor)) = value.r#type.as_ref()?.value.as_ref()
    else {
        return None;
    };
    let dimension = |d: &pb::tensor_shape_proto::Dimension| match d.value {
        Some(pb::tensor_shape_proto::dimension::Value::DimValue(n)) => usize::try_from(n).ok(),
        _ => None,
    };
    tensor.shape.as_ref()?.dim.iter().map(dimension).collect()
}
