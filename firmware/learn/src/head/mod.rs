//! Training of the head on corrected masks: hand-written passes over plain slices, one picture at a time.

mod enlarge;
mod evaluate;
mod layout;
mod loss;
mod network;
pub mod numbers;
mod ops;
mod real;
mod train;

pub use evaluate::{Confusion, is_held_back, should_adopt};
pub use layout::{
    Group, HEADS, HeadLayout, HeadShape, LAYERS, LayoutError, PARTS, POOLING, ParameterSpec, Subset,
};
pub use loss::{IGNORE, Target, TargetError, loss_and_gradient, semantic_labels, semantic_scores};
pub use network::{Features, Network, Prediction, SizeError, TrunkOutput};
pub use ops::Gradients;
pub use real::Real;
pub use train::{CHECKPOINT_MAGIC, TrainError, Trainer, TrainingSettings};

/// Adds the gradients of one picture's loss and gives the loss.
pub fn accumulate<R: Real>(
    network: &Network<'_, R>,
    features: &Features<R>,
    target: &Target<R>,
    gradients: &mut Gradients<R>,
) -> R {
    let (prediction, activations) = network.forward(features);
    let (loss, outputs) = loss_and_gradient(network.shape(), &prediction, target);
    network.backward(features, &activations, &outputs, gradients);
    loss
}
