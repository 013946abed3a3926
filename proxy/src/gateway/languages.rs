//! Requests for one of the languages that their origin tells apart.

use millpond_shared::http1::{FieldsBuilder, RequestHead};

use crate::semantics::language;

/// The request with the best of these languages alone, or with none. So it selects a variant, and so it goes to the origin.
pub(super) fn with_one_language(request: &RequestHead, offered: &[String]) -> RequestHead {
    let mut fields = FieldsBuilder::new();
    let others = request.fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("accept-language"));
    others.for_each(|(name, value)| {
        fields.push(name, value);
    });
    if let Some(language) = language::best(offered, &request.fields) {
        fields.push("Accept-Language", language);
    }
    RequestHead { fields: fields.build(), ..request.clone() }
}
