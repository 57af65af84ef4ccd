//! The network: a quantised trunk that stays, and a float head that can be replaced while running.
//!
//! With [`crate::sizes`] and [`crate::kernels`] the only module that names `tract`, whose surface changes between versions.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use frame::wipe;
use sha2::{Digest, Sha256};
use tract_core::internal::multithread::{Executor, multithread_tract_scope};
use tract_core::internal::{TValue, TVec, Tensor, TractResult, ensure, tvec};
use tract_core::model::{TypedRunnableModel, TypedSimpleState};
use tract_core::prelude::IntoRunnable;
use tract_onnx::pb;
use tract_onnx::prelude::{Framework, InferenceModelExt};

use crate::error::{ModelError, VisionError};
use crate::geometry::GridSize;
use crate::kernels;
use crate::manifest::{Graph, Manifest, ParameterInfo, TensorInfo};
use crate::sizes;
use proto::taxonomy::CLASS_COUNT;

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
const HANDED_ON: [&str; 4] = ["queries", "memory_a", "memory_b", "mask_features"];

/// How the network is run.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Threads for matrix products, at least 1.
    pub threads: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions { threads: 1 }
    }
}

/// The three files of a model.
#[derive(Clone, Debug)]
pub struct ModelFiles<'a> {
    /// Text of `manifest.toml`.
    pub manifest: Cow<'a, str>,
    /// Bytes of `trunk.onnx`.
    pub trunk: Cow<'a, [u8]>,
    /// Bytes of `head.onnx`.
    pub head: Cow<'a, [u8]>,
}

impl ModelFiles<'static> {
    /// Reads a model folder.
    ///
    /// # Errors
    /// [`ModelError::Read`] naming the file that is missing or unreadable.
    pub fn read(folder: &Path) -> Result<ModelFiles<'static>, ModelError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|source| ModelError::Read { path, source })
        };
        let manifest = String::from_utf8(read("manifest.toml")?)
            .map_err(|_| ModelError::Manifest("not a text file".into()))?;
        let named = Manifest::parse(&manifest)?;
        let inside = |graph: &Graph| {
            let plain =
                Path::new(&graph.file).components().count() == 1 && !graph.file.starts_with('.');
            if plain {
                read(&graph.file)
            } else {
                Err(ModelError::Manifest(format!("file {:?}", graph.file)))
            }
        };
        Ok(ModelFiles {
            trunk: inside(&named.trunk)?.into(),
            head: inside(&named.head)?.into(),
            manifest: manifest.into(),
        })
    }
}

/// A graph ready to run, with its memory. The memory holds values that may not change threads on their own, so a
/// `Plan` is what travels and a `Running` is made where it is used.
type Plan = Arc<TypedRunnableModel>;
type Running = TypedSimpleState;

/// A head that can replace another one; built on any thread.
#[derive(Clone, Debug)]
pub struct Head {
    plan: Plan,
    parameters: HeadParameters,
}

impl Head {
    /// The numbers it was built from.
    pub fn parameters(&self) -> &HeadParameters {
        &self.parameters
    }
}

/// The head's numbers as one flat vector, with the layout that names them.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadParameters {
    /// Input size that the constants belong to.
    grid: GridSize,
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

    /// The same constants with other trainable numbers ([`HeadParameters::trainable`]).
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
        let places = self.layout.iter().scan(0, |at, info| {
            let range = *at..*at + info.len();
            *at = range.end;
            Some((info.trainable, range))
        });
        places.filter_map(|(trainable, range)| trainable.then_some(range))
    }

    /// The same tensors with other values.
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
        let mut at = 0;
        for info in self.layout.iter() {
            let range = at..at + info.len();
            if !info.trainable && values[range.clone()] != self.values[range] {
                return Err(ModelError::Parameters(format!(
                    "{} is a constant and must stay",
                    info.name
                )));
            }
            at += info.len();
        }
        Ok(HeadParameters { layout: self.layout.clone(), values, ..*self })
    }
}

/// What the network says about one picture, before any decision.
#[derive(Debug)]
pub struct RawOutput {
    /// Number of queries, Q.
    pub queries: usize,
    /// Size of the masks, h x w: a quarter of the input's.
    pub mask_size: GridSize,
    /// Class logits, Q x 18, row-major.
    pub class_logits: Vec<f32>,
    /// Mask logits, Q x h x w, row-major.
    pub mask_logits: Vec<f32>,
}

/// A loaded and checked network.
pub struct Student {
    manifest: Manifest,
    grid: GridSize,
    trunk: Running,
    head: Running,
    head_proto: pb::ModelProto,
    parameters: HeadParameters,
    executor: Executor,
    output: RawOutput,
}

impl Student {
    /// Checks the files against their manifest and this build, and makes them ready to run at the size that they were
    /// exported at.
    ///
    /// # Errors
    /// [`ModelError`] naming the file, what is wrong with it, and what to do.
    pub fn load(files: &ModelFiles<'_>, options: &EngineOptions) -> Result<Student, ModelError> {
        let manifest = Manifest::parse(&files.manifest)?;
        Student::at(manifest.grid(), manifest, files, options)
    }

    /// The same, at the input size for upright pictures of `width` x `height` pixels ([`Manifest::grid_for`]).
    ///
    /// # Errors
    /// As [`Student::load`].
    pub fn load_for(
        (width, height): (u32, u32),
        files: &ModelFiles<'_>,
        options: &EngineOptions,
    ) -> Result<Student, ModelError> {
        let manifest = Manifest::parse(&files.manifest)?;
        Student::at(manifest.grid_for(width, height), manifest, files, options)
    }

    fn at(
        grid: GridSize,
        manifest: Manifest,
        files: &ModelFiles<'_>,
        options: &EngineOptions,
    ) -> Result<Student, ModelError> {
        kernels::choose().map_err(|error| load_error("the engine's settings", &error))?;
        let queries = check_interfaces(&manifest)?;
        let exported = manifest.grid();
        let mut trunk_proto = checked_graph(&manifest.trunk, &files.trunk)?;
        let mut head_proto = checked_graph(&manifest.head, &files.head)?;
        let mut parameters =
            read_parameters(&manifest.head.file, exported, &manifest.head.parameter, &head_proto)?;
        if grid != exported {
            sizes::resize(&manifest.trunk.file, &mut trunk_proto, exported, grid)?;
            sizes::resize(&manifest.head.file, &mut head_proto, exported, grid)?;
            let mut layout = manifest.head.parameter.clone();
            sizes::resize_parameters(&mut layout, grid);
            parameters = read_parameters(&manifest.head.file, grid, &layout, &head_proto)?;
        }
        let mask_size = GridSize { height: grid.height / 4, width: grid.width / 4 };
        let trunk = runnable(&manifest.trunk.file, &trunk_proto)?;
        let head = runnable(&manifest.head.file, &head_proto)?;
        let executor = match options.threads {
            0 | 1 => Executor::SingleThread,
            threads => Executor::multithread_with_name(threads, "network"),
        };
        let output = RawOutput {
            queries,
            mask_size,
            class_logits: vec![0.0; queries * CLASS_COUNT],
            mask_logits: vec![0.0; queries * mask_size.area()],
        };
        let mut student = Student {
            trunk: spawn(&manifest.trunk.file, &trunk)?,
            head: spawn(&manifest.head.file, &head)?,
            manifest,
            grid,
            head_proto,
            parameters,
            executor,
            output,
        };
        // Once now, so that a graph that cannot run is a load error and the first frame is not the slow one.
        let grey = vec![student.manifest.input.padding; 3 * student.grid().area()];
        if let Err(error) = student.run(&grey) {
            return Err(load_error(&student.manifest.trunk.file, &error));
        }
        Ok(student)
    }

    /// Name and version, such as `student 0.1.0`.
    pub fn name(&self) -> String {
        format!("{} {}", self.manifest.name, self.manifest.version)
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Input size that it runs at.
    pub fn grid(&self) -> GridSize {
        self.grid
    }

    /// Value that fills the letterbox's border.
    pub fn padding(&self) -> u8 {
        self.manifest.input.padding
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.output.queries
    }

    /// What the last [`Student::run`] gave.
    pub fn output(&self) -> &RawOutput {
        &self.output
    }

    /// The head's numbers in use.
    pub fn head_parameters(&self) -> &HeadParameters {
        &self.parameters
    }

    /// What [`build_head`](HeadBuilder::build) needs, to be sent to another thread.
    pub fn head_builder(&self) -> HeadBuilder {
        let file = self.manifest.head.file.clone();
        HeadBuilder { file, grid: self.grid, proto: self.head_proto.clone() }
    }

    /// Uses another head from the next picture on.
    ///
    /// # Errors
    /// [`ModelError::Parameters`] for a head of another input size, [`ModelError::Load`] when its memory cannot be set
    /// up; the old head stays.
    pub fn swap_head(&mut self, head: Head) -> Result<(), ModelError> {
        if head.parameters.grid != self.grid {
            return Err(ModelError::Parameters("they are for another input size".into()));
        }
        self.head = spawn(&self.manifest.head.file, &head.plan)?;
        self.parameters = head.parameters;
        Ok(())
    }

    /// Forgets the last picture: the output becomes zero, and what a run that failed had come to is dropped.
    pub fn forget(&mut self) {
        for running in [&mut self.trunk, &mut self.head] {
            // The next run begins with an empty table as the first one does.
            running.turn_state.values.clear();
        }
        wipe(&mut self.output.class_logits);
        wipe(&mut self.output.mask_logits);
    }

    /// Runs trunk and head on `pixels`: R, G, B planes, 3 x height x width bytes.
    ///
    /// # Errors
    /// [`VisionError::Network`] if the length is wrong or an operator fails.
    pub fn run(&mut self, pixels: &[u8]) -> Result<&RawOutput, VisionError> {
        let executor = self.executor.clone();
        multithread_tract_scope(executor, || self.run_here(pixels))
            .map_err(|e| VisionError::Network(format!("{e:#}")))?;
        Ok(&self.output)
    }

    fn run_here(&mut self, pixels: &[u8]) -> TractResult<()> {
        let grid = self.grid();
        let input = Tensor::from_shape(&[1, 3, grid.height, grid.width], pixels)?;
        let handed_on = self.trunk.run(tvec!(input.into()))?;
        let answer = self.head.run(in_order(handed_on, &self.manifest))?;
        take(&answer[0], &mut self.output.class_logits)?;
        take(&answer[1], &mut self.output.mask_logits)
    }

    /// The trunk's four outputs for `pixels`, in the order queries, memory a, memory b, mask features; for tests
    /// and for learning, which trains the head on them.
    ///
    /// # Errors
    /// As [`Student::run`].
    pub fn run_trunk(&mut self, pixels: &[u8]) -> Result<[Vec<f32>; 4], VisionError> {
        let grid = self.grid();
        let outputs = Tensor::from_shape(&[1, 3, grid.height, grid.width], pixels)
            .and_then(|input| self.trunk.run(tvec!(input.into())))
            .map_err(|e| VisionError::Network(format!("{e:#}")))?;
        let names: Vec<&str> = self.manifest.trunk.output.iter().map(|t| t.name.as_str()).collect();
        let find = |wanted: &str| names.iter().position(|n| *n == wanted).unwrap_or(0);
        let mut found: [Vec<f32>; 4] = Default::default();
        for (slot, name) in found.iter_mut().zip(HANDED_ON) {
            let tensor = &outputs[find(name)];
            let view = tensor
                .to_plain_array_view::<f32>()
                .map_err(|e| VisionError::Network(format!("{e:#}")))?;
            *slot = view.iter().copied().collect();
        }
        Ok(found)
    }
}

/// Builds heads from parameters, away from the running network.
#[derive(Clone, Debug)]
pub struct HeadBuilder {
    file: String,
    grid: GridSize,
    proto: pb::ModelProto,
}

impl HeadBuilder {
    /// A head with these numbers. Takes tens of milliseconds; meant for a thread that nobody waits for.
    ///
    /// # Errors
    /// [`ModelError`] when the parameters are not this head's or the graph cannot be made ready.
    pub fn build(&self, parameters: &HeadParameters) -> Result<Head, ModelError> {
        if parameters.grid != self.grid {
            return Err(ModelError::Parameters("they are for another input size".into()));
        }
        let mut proto = self.proto.clone();
        let graph = proto.graph.as_mut().ok_or_else(|| shape(&self.file, "it has no graph"))?;
        let mut at = 0;
        for info in parameters.layout() {
            let range = at..at + info.len();
            at = range.end;
            let tensor =
                graph.initializer.iter_mut().find(|t| t.name == info.name).ok_or_else(|| {
                    ModelError::Parameters(format!("the head has no tensor {}", info.name))
                })?;
            tensor.float_data.clear();
            tensor.raw_data =
                parameters.values()[range].iter().flat_map(|v| v.to_le_bytes()).collect();
        }
        Ok(Head { plan: runnable(&self.file, &proto)?, parameters: parameters.clone() })
    }
}

/// Copies an output of the network.
fn take(tensor: &Tensor, into: &mut [f32]) -> TractResult<()> {
    let values = tensor.to_plain_array_view::<f32>()?;
    ensure!(
        values.len() == into.len(),
        "an output has {} values, not {}",
        values.len(),
        into.len()
    );
    into.iter_mut().zip(values.iter()).for_each(|(into, value)| *into = *value);
    Ok(())
}

/// The trunk's outputs in the order of the head's inputs.
fn in_order(outputs: TVec<TValue>, manifest: &Manifest) -> TVec<TValue> {
    let names = &manifest.trunk.output;
    let position = |name: &str| names.iter().position(|t| t.name == name).expect("checked at load");
    manifest.head.input.iter().map(|t| outputs[position(&t.name)].clone()).collect()
}

fn load_error(file: &str, error: &dyn std::fmt::Display) -> ModelError {
    ModelError::Load { file: file.into(), reason: error.to_string() }
}

fn shape(file: &str, what: impl Into<String>) -> ModelError {
    ModelError::Shape { file: file.into(), what: what.into() }
}

/// Inputs and outputs as the rest of this crate expects them; gives the number of queries.
fn check_interfaces(manifest: &Manifest) -> Result<usize, ModelError> {
    let grid = manifest.grid();
    let (h, w) = (grid.height / 4, grid.width / 4);
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
fn checked_graph(graph: &Graph, bytes: &[u8]) -> Result<pb::ModelProto, ModelError> {
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

/// The head's initializers in the layout's order.
fn read_parameters(
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

fn runnable(file: &str, proto: &pb::ModelProto) -> Result<Plan, ModelError> {
    tract_onnx::onnx()
        .model_for_proto_model(proto)
        .and_then(|model| model.into_optimized())
        .and_then(|model| model.into_runnable())
        .map_err(|e| load_error(file, &format!("{e:#}")))
}

fn spawn(file: &str, plan: &Plan) -> Result<Running, ModelError> {
    plan.spawn().map_err(|e| load_error(file, &format!("{e:#}")))
}
