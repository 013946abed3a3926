//! The languages that a rule's origin tells apart.

use super::judge::Judge;
use crate::semantics::language;

/// Most of them: each is one more variant of every resource.
const LANGUAGES_MAX: usize = 64;

impl Judge<'_> {
    pub(super) fn languages(&mut self) -> Vec<String> {
        let Some(written) = &self.at.value.languages else { return Vec::new() };
        let fix = "name those that the origin answers in, its default first, as in [\"en\", \"de\"]";
        if written.value.is_empty() {
            self.wrong("languages", written.span.clone(), "is empty", fix);
        }
        if written.value.len() > LANGUAGES_MAX {
            let problem = format!("{} languages are more than {LANGUAGES_MAX}", written.value.len());
            self.wrong("languages", written.span.clone(), problem, "name fewer");
        }
        let mut languages: Vec<String> = Vec::new();
        for tag in &written.value {
            let (problem, fix) = if !language::is_tag(&tag.value) {
                ("is no language tag", "write it as in \"en\" or \"pt-BR\"")
            } else if languages.iter().any(|other| other.eq_ignore_ascii_case(&tag.value)) {
                ("is named twice", "name it once")
            } else {
                languages.push(tag.value.clone());
                continue;
            };
            self.wrong("languages", tag.span.clone(), format!("`{}` {problem}", tag.value), fix);
        }
        languages
    }
}
