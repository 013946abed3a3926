//! Sets of slots, as people write them: `0-127,300`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{SLOTS, Slot};

/// Some slots. Its text lists numbers and runs of them: `0-127,300`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slots(BTreeSet<Slot>);

impl Slots {
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.contains(&slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Slot> for Slots {
    /// Numbers that are no slots are left out.
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Slots {
        Slots(slots.into_iter().filter(|slot| usize::from(slot.0) < SLOTS).collect())
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for Slot(slot) in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => runs.push((slot, slot)),
            }
        }
        for (index, (first, last)) in runs.into_iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// The text is no set of slots.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no list of slots: write numbers from 0 to 1023 and runs of them, as in `0-127,300`")]
pub struct NoSlots(String);

impl FromStr for Slots {
    type Err = NoSlots;

    fn from_str(text: &str) -> Result<Slots, NoSlots> {
        let number = |digits: &str| -> Option<u16> {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|slot| is_number && usize::from(*slot) < SLOTS)
        };
        let run = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        };
        let runs: Option<Vec<_>> = text.split(',').map(run).collect();
        let runs = runs.ok_or_else(|| NoSlots(text.chars().take(64).collect()))?;
        Ok(runs.into_iter().flatten().map(Slot).collect())
    }
}

impl TryFrom<String> for Slots {
    type Error = NoSlots;

    fn try_from(text: String) -> Result<Slots, NoSlots> {
        text.parse()
    }
}

impl From<Slots> for String {
    fn from(slots: Slots) -> String {
        slots.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_written_short_and_read_back() {
        let text = |text: &str| text.parse::<Slots>().map(|slots| slots.to_string());
        assert_eq!(text("300,0-2,3,1").as_deref(), Ok("0-3,300"));
        assert_eq!(text("0-1023").as_deref(), Ok("0-1023"));
        assert_eq!("5".parse::<Slots>().map(|slots| slots.len()), Ok(1));
        for wrong in ["", "1024", "2-1", "1-", "-1", "1,,2", "a", "+1", "1 "] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
    }
}
