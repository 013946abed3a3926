//! `rate` and `burst` of a `[[source]]`: how fast it may send.

use millpond_shared::config::At;

use super::section::Section;
use crate::api::ingest::Rate;

/// Most events that a rate or a burst may name.
const EVENTS_MAX: u32 = 100_000_000;

/// `None` if it may send as fast as it can, or something is wrong.
pub(super) fn judge(section: &mut Section<'_>, rate: Option<&At<String>>, burst: Option<&At<u32>>) -> Option<Rate> {
    let Some(at) = rate else {
        if let Some(burst) = burst {
            section.wrong("burst", burst, "has no effect", "add rate, as in rate = \"5000/s\", or remove it");
        }
        return None;
    };
    let Some(per_second) = per_second(&at.value) else {
        let fix = "write events and a unit, as in \"5000/s\", \"300/m\" or \"1000/h\"";
        section.wrong("rate", at, format!("`{}` is no rate", at.value), fix);
        return None;
    };
    let default = per_second.ceil().min(f64::from(EVENTS_MAX)) as u32;
    let burst = section.number("burst", burst, default.max(1), 1..=EVENTS_MAX);
    Some(Rate { per_second, burst: f64::from(burst) })
}

/// Events in a second, of `5000/s`, `300/m` or `1000/h`.
fn per_second(text: &str) -> Option<f64> {
    let (events, unit) = text.split_once('/')?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let events: u32 = events.parse().ok().filter(|events| (1..=EVENTS_MAX).contains(events))?;
    Some(f64::from(events) / seconds)
}

#[cfg(test)]
mod tests {
    use super::super::source::testing::judged;
    use super::*;

    #[test]
    fn how_fast_can_be_said() {
        let head = "[[source]]\nname = \"w\"\npath = \"/w\"\n";
        for (written, per_second, burst) in [
            ("rate = \"5000/s\"", 5_000.0, 5_000.0),
            ("rate = \"30/m\"", 0.5, 1.0),
            ("rate = \"7200/h\"\nburst = 10", 2.0, 10.0),
        ] {
            let (sources, words) = judged(&format!("{head}{written}\n"));
            assert_eq!(words, [""; 0]);
            assert_eq!(sources[0].rate, Some(Rate { per_second, burst }));
        }
        for (written, expected) in [
            ("rate = \"5000\"", "rate: `5000` is no rate; fix: write events and a unit"),
            ("rate = \"0/s\"", "rate: `0/s` is no rate"),
            ("rate = \"1/d\"", "rate: `1/d` is no rate"),
            ("burst = 5", "burst: has no effect; fix: add rate"),
            ("burst = 0\nrate = \"1/s\"", "burst: 0 is out of range; fix: use 1 to 100000000"),
        ] {
            let (sources, words) = judged(&format!("{head}{written}\n"));
            assert!(sources.is_empty() && words.len() == 1 && words[0].contains(expected), "{written}: {words:?}");
        }
    }
}
