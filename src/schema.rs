//! `millpond schema`: the JSON Schema of the configuration, for editors to complete it by.

use crate::Failure;
use crate::config::Written;

pub fn main() -> Result<(), Failure> {
    println!("{}", text().map_err(Failure::from_display)?);
    Ok(())
}

fn text() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&schemars::schema_for!(Written))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `millpond schema > config/schema.json` mends it.
    #[test]
    fn the_schema_in_the_config_folder_is_this_one() {
        let kept = include_str!("../config/schema.json");
        assert_eq!(kept.trim_end(), text().expect("a schema"));
    }

    #[test]
    fn every_setting_stands_in_the_docs() {
        let docs = include_str!("../docs/CONFIG.md");
        let schema: serde_json::Value = serde_json::from_str(&text().expect("a schema")).expect("JSON");
        let sections = schema["$defs"].as_object().expect("sections");
        let settings = sections.values().filter_map(|section| section["properties"].as_object()).flatten();
        let missing: Vec<&String> =
            settings.map(|(name, _)| name).filter(|name| !docs.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "docs/CONFIG.md does not tell of {missing:?}");
    }
}
