//! What a held-back household gains from its corrections, and what other households lose.
//!
//! usage: gain MODEL-FOLDER HOUSEHOLDS-FOLDER [full|sparse] [LEARNING-RATE] [EPOCHS]
//!
//! Goes the product's own way: corrections through the encrypted store, training through [`Home::train_when`] with its
//! own held-back judges, and the answer of [`vision::Parser`] at the network's input size, with and without the
//! household's head. Prints one line of JSON for each household of `heldback/`, and where there are several one with the mean
//! gains and their standard errors; a figure is mean IoU over the parts that occur, in percent. Fails where the gains are
//! below the least ones, or no head is adopted: one household's judges may turn its head down, but several households' hardly all.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use frame::Orientation;
use home::{BaseModel, Conditions, Gate, Home, HomeOptions, Limits, Outcome};
use learn::consent::PurposeKind;
use learn::head::{Confusion, Subset, TrainingSettings};
use vision::{EngineOptions, ModelFiles, Parser, ParserOptions, Student};

#[path = "../tests/common/household.rs"]
mod household;
use household::{Household, read};

type Answer<T> = Result<T, Box<dyn Error>>;

/// Least mean gain on the households' own other pictures, in points.
const LEAST_OWN_GAIN: f64 = 0.0;
/// Least mean gain on other households': a head's judges are four pictures of its own household, and may err a little.
const LEAST_ELSEWHERE_GAIN: f64 = -1.0;

struct Idle;

impl Gate for Idle {
    fn conditions(&self) -> Conditions {
        Conditions::IDLE
    }
}

/// What one household's head changed; nothing where its judges turned it down.
struct Gain {
    adopted: bool,
    own: f64,
    elsewhere: f64,
}

fn main() -> Answer<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, households, rest @ ..] = arguments.as_slice() else {
        return Err(
            "usage: gain MODEL-FOLDER HOUSEHOLDS-FOLDER [full|sparse] [LEARNING-RATE] [EPOCHS]"
                .into(),
        );
    };
    let files = ModelFiles::read(Path::new(model))?;
    let settings = training(rest)?;
    let others = read(&Path::new(households).join("test"))?;
    let mut gains = Vec::new();
    for own in read(&Path::new(households).join("heldback"))? {
        gains.push(measure(&files, settings, &own, &others)?);
    }
    let (own, own_error) = mean(&gains, |gain| gain.own);
    let (elsewhere, elsewhere_error) = mean(&gains, |gain| gain.elsewhere);
    if gains.len() > 1 {
        println!(
            "{}",
            serde_json::json!({
                "households": gains.len(),
                "own_gain": own,
                "own_standard_error": own_error,
                "elsewhere_gain": elsewhere,
                "elsewhere_standard_error": elsewhere_error,
            })
        );
    }
    if !gains.iter().any(|gain| gain.adopted) {
        return Err("no household's judges adopted its head".into());
    }
    if own < LEAST_OWN_GAIN || elsewhere < LEAST_ELSEWHERE_GAIN {
        return Err(format!("less gain than {LEAST_OWN_GAIN} and {LEAST_ELSEWHERE_GAIN}").into());
    }
    Ok(())
}

fn measure(
    files: &ModelFiles,
    settings: TrainingSettings,
    own: &Household,
    elsewhere: &[Household],
) -> Answer<Gain> {
    let load = || Student::load(files, &EngineOptions::default());
    let parser_options = ParserOptions { smoothing: false, ..ParserOptions::default() };
    let mut parser = Parser::new(load()?, Orientation::default(), &parser_options);
    let folder = std::env::temp_dir().join(format!("mirror-gain-{}", std::process::id()));
    let options = HomeOptions {
        training: settings,
        at_home: settings,
        limits: Limits { headroom: 0, ..Limits::default() },
        ..HomeOptions::default()
    };
    let home = Home::open(&folder, BaseModel::new(parser.student())?, options)?;
    home.grant(
        PurposeKind::ImproveMyMirror,
        home.explanation().version(PurposeKind::ImproveMyMirror),
    )?;
    let consent = home.token()?;
    for labelled in &own.corrections {
        parser.parse(&labelled.picture.frame())?;
        home.add_correction(&consent, parser.pixels(), &labelled.parts)?;
    }
    let before = (score(&mut parser, [own])?, score(&mut parser, elsewhere)?);
    let began = Instant::now();
    let outcome = home.train_when(&mut load()?, &Idle, &AtomicBool::new(false))?;
    let seconds = began.elapsed().as_secs_f64();
    let Outcome::Finished(report) = outcome else { return Err(format!("{outcome:?}").into()) };
    parser.use_trainable(&home.head_trainable())?;
    let after = (score(&mut parser, [own])?, score(&mut parser, elsewhere)?);
    std::fs::remove_dir_all(&folder)?;
    let gain =
        Gain { adopted: report.adopted, own: after.0 - before.0, elsewhere: after.1 - before.1 };
    println!(
        "{}",
        serde_json::json!({
            "subset": if settings.subset == Subset::Full { "full" } else { "sparse" },
            "learning_rate": settings.learning_rate,
            "epochs": report.epochs,
            "corrections": own.corrections.len(),
            "trained_on": report.examples,
            "adopted": report.adopted,
            "own_before": before.0,
            "own_after": after.0,
            "own_gain": gain.own,
            "elsewhere_before": before.1,
            "elsewhere_after": after.1,
            "elsewhere_gain": gain.elsewhere,
            "seconds": seconds,
        })
    );
    Ok(gain)
}

/// Mean over the households and its standard error, which is no number for a single one.
fn mean(gains: &[Gain], of: fn(&Gain) -> f64) -> (f64, f64) {
    let count = gains.len() as f64;
    let mean = gains.iter().map(of).sum::<f64>() / count;
    let squares: f64 = gains.iter().map(|gain| (of(gain) - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

fn training(words: &[String]) -> Answer<TrainingSettings> {
    let mut settings = match words.first().map(String::as_str) {
        None | Some("full") => TrainingSettings::FULL,
        Some("sparse") => TrainingSettings::SPARSE,
        Some(other) => return Err(format!("\"{other}\" is neither sparse nor full").into()),
    };
    if let Some(rate) = words.get(1) {
        settings.learning_rate = rate.parse()?;
    }
    if let Some(epochs) = words.get(2) {
        settings.epochs = epochs.parse()?;
    }
    Ok(settings)
}

/// Mean IoU of the pictures that households are judged by, in percent.
fn score<'a>(
    parser: &mut Parser,
    households: impl IntoIterator<Item = &'a Household>,
) -> Answer<f64> {
    let mut confusion = Confusion::new();
    for labelled in households.into_iter().flat_map(|household| &household.others) {
        let parsing = parser.parse(&labelled.picture.frame())?;
        confusion.add(&labelled.parts, &parsing.parts);
    }
    Ok(100.0 * confusion.mean_iou().ok_or("no picture to judge by")?)
}
