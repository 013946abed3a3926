//! Text in XML and HTML (pure).

/// The text without the characters that XML 1.0 §2.2 forbids even in encoded form.
pub(super) fn allowed(text: &str) -> String {
    text.chars().filter(|c| !is_forbidden(*c)).collect()
}

pub(super) fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Appends text between tags or in a quoted attribute, without what XML forbids. White space comes through parsers as it
/// is: line ends would be made one (XML 1.0 §2.11), and those in attributes spaces (§3.3.3).
pub(super) fn put_text(out: &mut String, text: &str) {
    for c in text.chars().filter(|c| !is_forbidden(*c)) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            other => out.push(other),
        }
    }
}

/// `<name>text</name>`
pub(super) fn put_element(out: &mut String, name: &str, text: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    put_text(out, text);
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// HTML that shows the text.
pub(super) fn html_of(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_through_a_parser_as_it_was() {
        for text in ["", "a & b < c > d \"e\" 'f'", "\r\n\t x \r", "]]><![CDATA[", "𝄞\u{fffd}\u{85}\u{2028}"] {
            let mut xml = String::from("<a b=\"");
            put_text(&mut xml, text);
            xml.push_str("\">");
            put_element(&mut xml, "c", text);
            xml.push_str("</a>");
            let document = roxmltree::Document::parse(&xml).unwrap_or_else(|error| panic!("{error}: {xml}"));
            let root = document.root_element();
            assert_eq!(root.attribute("b"), Some(text));
            assert_eq!(root.first_element_child().and_then(|child| child.text()).unwrap_or_default(), text);
        }
        let mut xml = String::new();
        put_text(&mut xml, "a\u{0}\u{b}\u{ffff}b");
        assert_eq!(xml, "ab");
    }
}
