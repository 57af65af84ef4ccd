//! The words that people agree to and the assessment that ships with them say the same.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use home::explanation::Explanation;
use home::{HomeOptions, KEPT_HEADS, MOST_JUDGES};
use learn::consent::PurposeKind;
use learn::head::{HeadLayout, HeadShape};
use learn::privacy::{ADJACENCY, Budget, TRUST, UNIT, epsilon};

const ASSESSMENT: &str = include_str!("../privacy-impact.md");

/// The student's sizes; `learn` checks that they are those of its manifest.
const STUDENT: HeadShape =
    HeadShape { queries: 28, dim: 96, hidden: 384, mask_height: 64, mask_width: 48 };

/// A number as the assessment writes it, below a million.
fn grouped(number: usize) -> String {
    format!("{},{:03}", number / 1_000, number % 1_000)
}

fn in_words(number: usize) -> &'static str {
    match number {
        40 => "forty",
        _ => panic!("write {number} out, here and in the assessment"),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_sentence_of_the_explanation_is_in_the_assessment() {
    let assessment = one_line(ASSESSMENT);
    let explanation = Explanation::new(&HomeOptions::default()).unwrap();
    for sentence in explanation.purposes.iter().flat_map(|purpose| purpose.sentences()) {
        assert!(assessment.contains(&one_line(sentence)), "not in the assessment: {sentence}");
    }
}

#[test]
fn the_assessments_own_figures_are_those_in_force() {
    let options = HomeOptions::default();
    let assessment = one_line(ASSESSMENT);
    let days = options.limits.age.as_secs() / 86_400;
    let layout = HeadLayout::of_shape(STUDENT).unwrap();
    let numbers = layout.subset_len(options.training.subset);
    let releases = options.most_releases();
    assert_eq!(releases, 3, "the assessment writes it out: three releases");
    let noise = options.noise_multiplier().unwrap();
    let whole = epsilon(noise, releases, Budget::DEFAULT.delta()).unwrap();
    for fact in [
        UNIT.to_owned(),
        ADJACENCY.to_owned(),
        TRUST.to_owned(),
        format!("at most {} corrections", options.limits.corrections),
        format!("until deleted, at most {days} days"),
        format!("Epsilon {} is a weak guarantee", Budget::DEFAULT.epsilon()),
        format!("({} with the default settings)", grouped(numbers)),
        format!("default plan cost {} of it", whole.shown_epsilon()),
        format!("at most {KEPT_HEADS}, and as many of the network before |"),
        format!("(none to {})", in_words(MOST_JUDGES)),
    ] {
        assert!(assessment.contains(&fact), "{fact}");
    }
}

#[test]
fn between_two_households_updates_the_bound_is_that_of_half_the_noise() {
    let options = HomeOptions::default();
    let explanation = Explanation::new(&options).unwrap();
    let told = &explanation.purpose(PurposeKind::ContributeToFleet).budget;
    let bound = epsilon("0.6".parse().unwrap(), 3, 1e-5).unwrap().epsilon();
    assert!((15.8..15.95).contains(&bound), "{bound}");
    assert!(told.contains(&format!("the bound is {}", (10.0 * bound).ceil() / 10.0)), "{told}");
}

#[test]
fn a_protection_is_called_weak_in_plain_words_where_it_is() {
    let told = |budget: f64| {
        let budget = Budget::new(budget, 1e-5).unwrap();
        let options =
            HomeOptions { budget, noise: home::NoisePlan::Lifetime(1), ..Default::default() };
        let explanation = Explanation::new(&options).unwrap();
        explanation.purpose(PurposeKind::ContributeToFleet).budget.clone()
    };
    let bound = |words: &str| -> f64 {
        let (_, bound) = words.split_once("send the bound is ").unwrap();
        bound.split_once(". Unit").unwrap().0.parse().unwrap()
    };
    let right = |words: &str| -> Option<f64> {
        let (_, right) = words.split_once("is right at most ")?;
        right.split_once(" times in 100").unwrap().0.parse().ok()
    };
    for (budget, is_weak) in [(8.0, true), (2.0, true), (0.5, false), (0.25, false)] {
        let words = told(budget);
        assert!(words.starts_with("In plain words: "), "{words}");
        assert_eq!(words.contains("this protection is weak"), is_weak, "{words}");
        assert_eq!(right(&words).is_none(), is_weak, "{words}");
        // As odds, the least of all that round to it is what epsilon bounds.
        if let Some(right) = right(&words) {
            let odds = |right: f64| (right / (100.0 - right)).ln();
            let bound = bound(&words);
            assert!(odds(right - 1.0) < bound && bound <= odds(right), "{words}");
        }
    }
}

#[test]
fn a_changed_figure_is_another_version_of_the_text() {
    let versions = |options: HomeOptions| Explanation::new(&options).unwrap().versions;
    let plain = HomeOptions::default();
    let mut shorter = plain;
    shorter.limits.age /= 2;
    let noisier = HomeOptions { noise: home::NoisePlan::Lifetime(12), ..plain };
    let [improve, contribute] = versions(plain);
    assert_eq!(versions(plain), [improve, contribute]);
    // Of its own purpose alone.
    assert!(versions(shorter)[0] != improve && versions(shorter)[1] == contribute);
    assert!(versions(noisier)[0] == improve && versions(noisier)[1] != contribute);
}
