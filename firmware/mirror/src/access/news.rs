//! What the glass tells of pairing: of wrong guesses, and of who was paired, for a while.

use std::time::Duration;

/// A browser that was paired is told of for this long.
pub const PAIRED_TOLD: Duration = Duration::from_secs(600);
/// Wrong guesses, with whoever came after them, are told of for this long: those who live here may be asleep, or out.
pub const WRONG_TOLD: Duration = Duration::from_secs(12 * 3600);

/// What there is to tell; nothing at first. Times are durations since any fixed moment.
#[derive(Default)]
pub struct News {
    /// When there were last so many wrong guesses that somebody should know.
    wrong_at: Option<Duration>,
    /// Those who were paired lately, the first one first.
    paired: Vec<PairedLately>,
}

/// A browser that was paired.
struct PairedLately {
    at: Duration,
    id: String,
    /// As it is told of: see [`told_name`].
    name: String,
    after_wrong: bool,
}

impl News {
    /// Notes that there were so many wrong guesses that somebody should know.
    pub fn note_wrong(&mut self, now: Duration) {
        self.wrong_at = Some(now);
    }

    /// Notes that this browser was paired.
    pub fn note_paired(&mut self, id: String, name: &str, now: Duration) {
        let after_wrong = self.is_told_wrong(now);
        self.paired.retain(|paired| now.saturating_sub(paired.at) < WRONG_TOLD);
        self.paired.push(PairedLately { at: now, id, name: told_name(name), after_wrong });
    }

    /// What those who live here should know now: of browsers that are paired still, as `is_paired` knows by their ids.
    pub fn text(&self, now: Duration, is_paired: impl Fn(&str) -> bool) -> Option<String> {
        let told = |paired: &&PairedLately| {
            let time = if paired.after_wrong { WRONG_TOLD } else { PAIRED_TOLD };
            now.saturating_sub(paired.at) < time && is_paired(&paired.id)
        };
        let told: Vec<&PairedLately> = self.paired.iter().filter(told).collect();
        let doubtful: Vec<&str> = told
            .iter()
            .filter(|paired| paired.after_wrong)
            .map(|paired| paired.name.as_str())
            .collect();
        match (doubtful.as_slice(), told.last()) {
            ([name], _) => Some(format!(
                "After wrong codes a browser was paired: {name}. If it is none of yours, remove it on the mirror's page."
            )),
            ([_, ..], _) => Some(format!(
                "After wrong codes browsers were paired: {}. Remove what is none of yours on the mirror's page.",
                few(&doubtful)
            )),
            ([], Some(PairedLately { name, .. })) => Some(format!("A browser was paired: {name}.")),
            ([], None) => self.is_wrong_unanswered(now).then(|| {
                "Somebody on the home network typed wrong codes to pair a browser. No browser has been paired since; there is nothing to do."
                    .to_owned()
            }),
        }
    }

    fn is_told_wrong(&self, now: Duration) -> bool {
        self.wrong_at.is_some_and(|at| now.saturating_sub(at) < WRONG_TOLD)
    }

    /// Whether nobody was paired since: whoever was is told of by name, and after a removal there is nothing more to do.
    fn is_wrong_unanswered(&self, now: Duration) -> bool {
        let last = self.paired.last().map(|paired| paired.at);
        self.is_told_wrong(now) && self.wrong_at > last
    }
}

/// A browser's name as the glass can show it: its typeface has not every script, and boxes name nobody.
fn told_name(name: &str) -> String {
    match overlay::can_write(name) {
        true => format!("“{name}”"),
        false => "one whose name the mirror's screen cannot show".to_owned(),
    }
}

/// The first of these names: those that came soonest after the wrong codes.
fn few(names: &[&str]) -> String {
    const MOST: usize = 3;
    let mut text: Vec<String> = names.iter().take(MOST).map(ToString::to_string).collect();
    if names.len() > MOST {
        text.push(format!("and {} more", names.len() - MOST));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    #[test]
    fn whose_name_the_glass_cannot_show_is_told_of_without_it() {
        let mut news = News::default();
        let mut told = |id: &str, name| {
            news.note_paired(id.into(), name, START);
            news.text(START, |_| true).unwrap_or_default()
        };
        assert_eq!(told("1", "Телефон Ады"), "A browser was paired: “Телефон Ады”.");
        let nameless = "A browser was paired: one whose name the mirror's screen cannot show.";
        assert_eq!(told("2", "艾达的手机"), nameless);
    }
}
