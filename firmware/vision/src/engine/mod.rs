//! The network: a quantised trunk that stays, and a float head that can be replaced while running.
//!
//! With [`crate::sizes`] and [`crate::kernels`] the only module that names `tract`, whose surface changes between versions: here what runs,
//! in `graph` what is let in, in `files` and `parameters` what it is made of.

mod files;
mod graph;
mod parameters;

use std::sync::Arc;

use frame::wipe;
use tract_core::internal::multithread::{Executor, multithread_tract_scope};
use tract_core::internal::{TValue, TVec, Tensor, TractResult, ensure, tvec};
use tract_core::model::{TypedRunnableModel, TypedSimpleState};
use tract_core::prelude::IntoRunnable;
use tract_onnx::pb;
use tract_onnx::prelude::{Framework, InferenceModelExt};

pub use files::ModelFiles;
use graph::{HANDED_ON, check_interfaces, checked_graph, mask_size};
pub use parameters::HeadParameters;
use parameters::read_parameters;

use crate::error::{ModelError, VisionError};
use crate::geometry::GridSize;
use crate::kernels;
use crate::manifest::Manifest;
use crate::sizes;
use proto::taxonomy::CLASS_COUNT;

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

    /// [`Student::load`] at the input size for upright pictures of `width` x `height` pixels ([`Manifest::grid_for`]).
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
        let mask_size = mask_size(grid);
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

    /// Name and version, such as `student 1.2.3`.
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
        for (info, range) in parameters.ranges() {
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
