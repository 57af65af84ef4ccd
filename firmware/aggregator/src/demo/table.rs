//! The demonstration on a terminal: one line a round, which also reads well in a log.

use learn::privacy::Budget;

use crate::engine::{RoundStatus, Status};
use crate::records::Phase;

/// Names of the columns.
pub const HEAD: &str = "\
round  updates      KiB  held-out accuracy   epsilon at 1e-5  model
-----  -------  -------  ------------------  ---------------  ------------------------------";

const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Accuracy that a whole letter of the bar stands for: one percentage point.
const LETTER: f64 = 0.01;

/// Eighths of a letter that stand for the first model.
const FIRST: f64 = 16.0;

/// The line before the first round: the head that the mirrors ship with.
pub fn start(rounds: &[RoundStatus]) -> String {
    let base = base_score(rounds);
    row("-", "-", "-", base.map(|score| (score, score)), "0", "1: as the mirrors ship")
}

/// The line of a round; rounds of another noise that were given up do not count.
pub fn line(status: &Status, number: u64) -> String {
    let Some(last) = status.rounds.last() else { return String::new() };
    let base = base_score(&status.rounds);
    let score = last.round.score_after.zip(base);
    let end = match &last.round.phase {
        Phase::Published { version } => format!("{version}: published, at every mirror"),
        Phase::Aborted { .. } if score.is_some() => "the gate keeps the model before".to_owned(),
        Phase::Aborted { reason } => reason.clone(),
        phase => phase.name().to_owned(),
    };
    let kib = format!("{:.1}", last.tally.bytes as f64 / 1024.0);
    let epsilon = status
        .epsilon
        .map_or("-".to_owned(), |epsilon| format!("{:.1}", (10.0 * epsilon).ceil() / 10.0));
    row(&number.to_string(), &last.tally.counted.to_string(), &kib, score, &epsilon, &end)
}

fn base_score(rounds: &[RoundStatus]) -> Option<f64> {
    rounds.iter().find_map(|round| round.round.score_before)
}

fn row(
    round: &str,
    updates: &str,
    kib: &str,
    score: Option<(f64, f64)>,
    epsilon: &str,
    model: &str,
) -> String {
    let score = score.map_or("-".to_owned(), |(score, base)| {
        format!("{:6.2} % {}", 100.0 * score, bar(score - base))
    });
    format!("{round:>5}  {updates:>7}  {kib:>7}  {score:<18}  {epsilon:>15}  {model}")
}

/// A bar of at most eight letters; the first model has two, and so many more or fewer as it is better or worse by.
fn bar(change: f64) -> String {
    let eighths = (FIRST + 8.0 * change / LETTER).round().clamp(1.0, 64.0) as usize;
    let mut bar: String = std::iter::repeat_n(STEPS[7], eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        bar.push(STEPS[eighths % 8 - 1]);
    }
    bar
}

/// What came of it, in words.
pub fn summary(status: &Status) -> String {
    let base = base_score(&status.rounds);
    let shipped = status.models.iter().rev().find_map(|known| known.model.score);
    let mut text = match (base, shipped.or(base)) {
        (Some(base), Some(now)) => format!(
            "Held-out accuracy (mean IoU over parts, households that no mirror has): {:.2} % -> {:.2} %.\n",
            100.0 * base,
            100.0 * now
        ),
        _ => "No round was judged.\n".to_owned(),
    };
    if let Some(privacy) = &status.privacy {
        text += &format!("A mirror that took part in every round has spent: {privacy}.\n");
    }
    let budget = Budget::DEFAULT.epsilon();
    if status.epsilon.is_some_and(|epsilon| epsilon > budget) {
        text += &format!(
            "A mirror's owner allows {budget} in its lifetime unless told otherwise; an epsilon above that promises little, and one in the \
             hundreds nothing. "
        );
    }
    text +=
        "`aggregator simulate` shows what size of fleet carries signal under noise that protects.";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_with_the_distance_from_the_first_model_and_stays_in_its_column() {
        assert_eq!(bar(0.0), "██");
        assert_eq!(bar(LETTER / 2.0), "██▄");
        assert_eq!(bar(-LETTER), "█");
        assert_eq!((bar(-1.0).chars().count(), bar(1.0).chars().count()), (1, 8));
    }

    #[test]
    fn rows_stand_under_their_names() {
        let line = row("3", "12", "130.0", Some((0.3788, 0.3533)), "4118.4", "4: published");
        let place = |text: &str, word: &str| {
            text.find(word).map(|at| text.get(..at).unwrap_or_default().chars().count())
        };
        assert_eq!(place(&line, "4: published"), place(HEAD, "model"));
        assert!(line.contains(" 37.88 % ████▄"), "{line}");
    }
}
