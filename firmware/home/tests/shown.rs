//! What a head is judged by is what the mirror shows: the shipped network, a rendered household, the product's own parser.

#[path = "common/household.rs"]
mod household;

use std::path::{Path, PathBuf};

use frame::Orientation;
use home::{BaseModel, Home, HomeOptions, Limits};
use household::{Household, Labelled};
use learn::consent::{ConsentToken, ImproveMyMirror, PurposeKind};
use learn::edges::RunId;
use learn::head::{
    Confusion, Features, Network, Subset, Target, Trainer, TrainingSettings, TrunkOutput,
    semantic_labels, semantic_scores,
};
use vision::{EngineOptions, ModelFiles, Parser, ParserOptions, Student};

type Example = (Features<f32>, Target<f32>);

struct Scene {
    parser: Parser,
    trunk: Student,
    base: BaseModel,
}

impl Scene {
    fn new() -> Scene {
        let files = ModelFiles::read(&models("student")).expect("the shipped network");
        let load = || Student::load(&files, &EngineOptions::default()).expect("it loads");
        // No smoothing: every picture stands alone.
        let options = ParserOptions { smoothing: false, ..ParserOptions::default() };
        let parser = Parser::new(load(), Orientation::default(), &options);
        let base = BaseModel::new(parser.student()).expect("trainable");
        Scene { parser, trunk: load(), base }
    }

    fn example(&mut self, labelled: &Labelled) -> Example {
        self.parser.parse(&labelled.picture.frame()).expect("parsed");
        let [queries, memory_a, memory_b, mask_features] =
            self.trunk.run_trunk(self.parser.pixels()).expect("features");
        let outputs = TrunkOutput {
            queries: &queries,
            memory_a: &memory_a,
            memory_b: &memory_b,
            mask_features: &mask_features,
        };
        let BaseModel { layout, parameters, grid, .. } = &self.base;
        let features = Features::new(layout, parameters, outputs).expect("they fit");
        (
            features,
            Target::new(layout.shape(), &labelled.parts, grid.height, grid.width).expect("labels"),
        )
    }

    /// Mean IoU, in points, by what training judges with, and of what the mirror shows.
    fn judged_and_shown(&mut self, head: &[f32], pictures: &[(Example, &Labelled)]) -> (f64, f64) {
        let layout = &self.base.layout;
        self.parser.use_trainable(&layout.gather(Subset::Full, head)).expect("a head");
        let network = Network::new(layout, head).expect("it fits");
        let (mut judged, mut shown) = (Confusion::new(), Confusion::new());
        for ((features, target), labelled) in pictures {
            judged.add(
                &target.dominant(),
                &semantic_labels(layout.shape(), &network.predict(features)),
            );
            shown.add(
                &labelled.parts,
                &self.parser.parse(&labelled.picture.frame()).expect("parsed").parts,
            );
        }
        let points = |confusion: Confusion| 100.0 * confusion.mean_iou().expect("people are there");
        (points(judged), points(shown))
    }
}

fn models(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(folder)
}

fn token(base: BaseModel) -> ConsentToken<ImproveMyMirror> {
    let folder = std::env::temp_dir().join(format!("mirror-shown-{}", std::process::id()));
    let options = HomeOptions {
        limits: Limits { headroom: 0, ..Limits::default() },
        ..HomeOptions::default()
    };
    let home = Home::open(&folder, base, options).expect("open");
    let version = home.explanation().version(PurposeKind::ImproveMyMirror);
    home.grant(PurposeKind::ImproveMyMirror, version).expect("granted");
    let token = home.token().expect("a token");
    std::fs::remove_dir_all(&folder).expect("ours");
    token
}

/// Mean over all cells of `|ln T|`: how far their scores are from one together.
fn apart(scene: &Scene, head: &[f32], pictures: &[(Example, &Labelled)]) -> f32 {
    let shape = scene.base.layout.shape();
    let network = Network::new(&scene.base.layout, head).expect("it fits");
    let of = |((features, _), _): &(Example, &Labelled)| {
        let scores = semantic_scores(shape, &network.predict(features));
        let cells = shape.score_cells();
        let total = |cell: usize| scores.iter().skip(cell).step_by(cells).sum::<f32>();
        (0..cells).map(|cell| total(cell).max(1e-3).ln().abs()).sum::<f32>() / cells as f32
    };
    pictures.iter().map(of).sum::<f32>() / pictures.len() as f32
}

#[test]
fn what_a_household_gains_by_its_judges_it_gains_on_the_glass() {
    let mut scene = Scene::new();
    let households =
        household::read(&models("households/heldback")).expect("the held-back households");
    let Household { corrections, others } = &households[1];
    let examples: Vec<Example> =
        corrections[..10].iter().map(|labelled| scene.example(labelled)).collect();
    let judged: Vec<_> =
        others[..16].iter().map(|labelled| (scene.example(labelled), labelled)).collect();
    let (consent, settings) =
        (token(scene.base.clone()), TrainingSettings { epochs: 6, ..TrainingSettings::FULL });
    let BaseModel { layout, parameters, .. } = scene.base.clone();
    let mut trainer = Trainer::new(
        layout,
        parameters.clone(),
        examples.len(),
        settings,
        RunId([7; 16]),
        &consent,
    )
    .expect("a run");
    while let Some(index) = trainer.next_example() {
        trainer.train(&consent, &examples[index].0, &examples[index].1).expect("a step");
    }
    let before = scene.judged_and_shown(&parameters, &judged);
    let after = scene.judged_and_shown(trainer.parameters(), &judged);
    let (by_judges, on_the_glass) = (after.0 - before.0, after.1 - before.1);
    let apart = [&parameters[..], trainer.parameters()].map(|head| apart(&scene, head, &judged));
    assert!(trainer.parameters() != parameters, "nothing was trained");
    println!(
        "{before:?} -> {after:?}: judged {by_judges:+.2}, shown {on_the_glass:+.2}; apart {apart:.3?}"
    );
    // 2.6 and 1.7 when this was written, and without the term that keeps a cell's scores near one together 2.3 and 1.5; the scores
    // were 0.030 apart then, and 0.046 without it.
    assert!(
        by_judges > 1.3 && on_the_glass > 0.8,
        "judged {by_judges:+.2}, shown {on_the_glass:+.2}"
    );
    assert!(
        (by_judges - on_the_glass).abs() < 1.5,
        "judged {by_judges:+.2}, shown {on_the_glass:+.2}"
    );
    assert!(apart[1] < 0.7 * apart[0], "scores that claim a cell over and over: {apart:?}");
}
