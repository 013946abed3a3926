//! `millpond schema`: the JSON Schema of the configuration, for editors to complete it by.

use crate::Failure;
use crate::config::Written;

pub fn main() -> Result<(), Failure> {
    let schema = schemars::schema_for!(Written);
    let text = serde_json::to_string_pretty(&schema).map_err(Failure::from_display)?;
    println!("{text}");
    Ok(())
}
