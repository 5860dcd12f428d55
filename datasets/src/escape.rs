//! Text from outside, made harmless for what it is written into: names of files and classes, keys, codes of servers,
//! names of tensors.
//!
//! Nobody writes such a text in another way than by the function of its target:
//!
//! | target | function |
//! |---|---|
//! | a sample id: one line, one spelling per name, no two names with the same text | [`escape`], [`escape_text`] |
//! | one line of a message, or of a file with a name a line, such as `labels.txt` | [`printable`] |
//! | several lines on a terminal | [`terminal`] |
//! | text and attributes of HTML and SVG | [`html`] |
//! | a cell, a heading or a paragraph of Markdown | [`markdown`] |
//! | a string of YAML | [`yaml`] |
//! | JSON that a terminal may show | [`json`] |

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Write;

/// The name as text in which every character prints and keeps its place: a backslash is doubled, control and
/// invisible characters are written as `\n` or `\u{85}`, and bytes that are not UTF-8 as `\xff`. Because the
/// escape escapes itself, names that differ give texts that differ.
pub fn escape(name: &OsStr) -> Cow<'_, str> {
    if let Some(text) = name.to_str()
        && is_plain(text)
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character == '\\' || is_invisible(character) {
                true => escaped.extend(character.escape_default()),
                false => escaped.push(character),
            }
        }
        for byte in chunk.invalid() {
            write!(escaped, "\\x{byte:02x}").expect("a string takes what is written to it");
        }
    }
    Cow::Owned(escaped)
}

/// [`escape`] of a name that is text.
pub fn escape_text(name: &str) -> Cow<'_, str> {
    escape(OsStr::new(name))
}

/// One line in which every character prints: the text itself where it is so already, such as an id, else its escape.
pub fn printable(text: &str) -> Cow<'_, str> {
    match is_printable(text) {
        true => Cow::Borrowed(text),
        false => escape_text(text),
    }
}

/// Lines in which no character but the end of a line commands a terminal or hides. What prints stays as it is.
pub fn terminal(text: &str) -> String {
    replaced(text, |character, shown| match character != '\n' && is_invisible(character) {
        true => shown.extend(character.escape_default()),
        false => shown.push(character),
    })
}

/// Text of HTML and SVG, between tags as within the quotes of an attribute.
pub fn html(text: &str) -> String {
    replaced(&printable(text), |character, shown| match character {
        '&' => shown.push_str("&amp;"),
        '<' => shown.push_str("&lt;"),
        '>' => shown.push_str("&gt;"),
        '"' => shown.push_str("&quot;"),
        '\'' => shown.push_str("&#39;"),
        _ => shown.push(character),
    })
}

/// Text of Markdown (CommonMark with GitHub's tables) that ends no cell, starts no markup and holds no HTML. It may stand
/// anywhere but at the start of a line, where `1.` or `-` would begin a list.
pub fn markdown(text: &str) -> String {
    // Backslashes would keep these, too; entities also keep programs that look for tags from seeing one.
    replaced(&printable(text), |character, shown| match character {
        '&' => shown.push_str("&amp;"),
        '<' => shown.push_str("&lt;"),
        '>' => shown.push_str("&gt;"),
        '\\' | '`' | '*' | '_' | '[' | ']' | '(' | ')' | '|' | '~' | '#' | '$' | '!' => {
            shown.extend(['\\', character]);
        }
        _ => shown.push(character),
    })
}

/// A double-quoted string of YAML. What prints stands as itself: YAML knows no surrogate pairs, which JSON writes for
/// characters outside the Basic Multilingual Plane.
pub fn yaml(text: &str) -> String {
    let inner = replaced(text, |character, shown| match character {
        '"' | '\\' => shown.extend(['\\', character]),
        _ if is_invisible(character) => {
            write!(shown, "\\U{:08x}", character as u32).expect("a string takes what is written to it");
        }
        _ => shown.push(character),
    });
    format!("\"{inner}\"")
}

/// JSON whose strings hold no character that commands a terminal or hides: JSON itself lets most of them stand. To a parser
/// it is the same.
pub fn json(json: &str) -> String {
    replaced(json, |character, shown| match character != '\n' && is_invisible(character) {
        true => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(shown, "\\u{unit:04x}").expect("a string takes what is written to it");
            }
        }
        false => shown.push(character),
    })
}

fn replaced(text: &str, mut write: impl FnMut(char, &mut String)) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|character| write(character, &mut shown));
    shown
}

/// What a file or a server says, as a part of a message of one line: ends of lines are spaces, and what does not print
/// is escaped. A backslash stays one, unlike in [`escape`], since nobody takes the text for a name.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if is_printable(text) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            _ if is_invisible(character) => line.extend(character.escape_default()),
            _ => line.push(character),
        }
    }
    Cow::Owned(line)
}

/// Whether the text prints as one line as it is.
pub fn is_printable(text: &str) -> bool {
    !text.chars().any(is_invisible)
}

fn is_plain(text: &str) -> bool {
    // Nearly all names are of this kind, and there can be millions of them.
    let is_simple = text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\');
    is_simple || !text.chars().any(|character| character == '\\' || is_invisible(character))
}

/// Control characters, line separators, marks of direction and characters of no width. The list is written out
/// because ids must not change with the Unicode version of a compiler.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{fffe}'..='\u{ffff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// One word of a command line, in quotes where a POSIX shell would take it apart.
pub fn shell(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@%+,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn plain_names_stay_and_others_become_one_line() {
        for (name, expected) in [
            ("cat/1.jpg", "cat/1.jpg"),
            ("ü é/#1%20.jpg", "ü é/#1%20.jpg"),
            ("e\u{301}", "e\u{301}"),
            ("a\\b", r"a\\b"),
            ("a\nb\u{85}c\u{202e}", r"a\nb\u{85}c\u{202e}"),
            (r"bad-\xff.png", r"bad-\\xff.png"),
        ] {
            assert_eq!(escape_text(name), expected);
            assert!(is_printable(expected));
        }
        assert!(!is_printable("a\u{85}"));
    }

    /// Names that mean something to the formats that they are written into.
    const HOSTILE: [&str; 14] = [
        "<script>alert(1)</script>",
        "a|b",
        "](x)",
        "`code`",
        "\u{1b}[2J",
        "a\u{202e}b",
        "a\u{85}b",
        "\u{1f600}",
        "two\nlines",
        "# x",
        "- x",
        "\"'&amp;",
        "\u{e0041}\u{9b}",
        "a\\b",
    ];

    #[test]
    fn no_name_breaks_out_of_what_it_is_written_into() {
        for name in HOSTILE {
            for text in [printable(name).into_owned(), html(name), markdown(name), yaml(name)] {
                assert!(is_printable(&text), "{text:?}");
            }
            let shown = terminal(name);
            assert!(is_printable(&shown.replace('\n', "")), "{shown:?}");
            for text in [html(name), markdown(name)] {
                assert!(!text.contains(['<', '>']), "{text}");
            }
            assert!(!html(name).contains(['"', '\'']), "{}", html(name));
            let written = serde_json::to_string(name).unwrap();
            let escaped = json(&written);
            assert!(is_printable(&escaped), "{escaped:?}");
            assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), name);
        }
        assert_eq!(terminal("a\u{1b}[2J\u{9b}\rb\té\n"), "a\\u{1b}[2J\\u{9b}\\rb\\té\n");
        assert_eq!(terminal("a\u{202e}b\\c"), "a\\u{202e}b\\c");
        assert_eq!(markdown("a|b [x](y) \n"), r"a\|b \[x\]\(y\) \\n");
        assert_eq!(yaml("\u{1f600} \"a\\b\"\n"), "\"\u{1f600} \\\"a\\\\b\\\"\\U0000000a\"");
        assert_eq!(html("a\nb<"), "a\\nb&lt;");
    }

    #[test]
    fn what_others_say_becomes_one_line_that_moves_no_cursor() {
        assert_eq!(one_line("a \\ b"), "a \\ b");
        assert_eq!(one_line("a\n\x1b[2Jb\u{202e}\\"), r"a \u{1b}[2Jb\u{202e}\");
    }

    /// What [`escape`] was given.
    fn unescape(text: &str) -> Vec<u8> {
        let mut name = Vec::new();
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let (value, length) = match &rest.as_bytes()[..rest.len().min(2)] {
                b"\\\\" => (b"\\".to_vec(), 2),
                b"\\n" => (b"\n".to_vec(), 2),
                b"\\r" => (b"\r".to_vec(), 2),
                b"\\t" => (b"\t".to_vec(), 2),
                b"\\x" => (vec![u8::from_str_radix(&rest[2..4], 16).expect("two digits")], 4),
                b"\\u" => {
                    let end = rest.find('}').expect("a closing brace");
                    let code = u32::from_str_radix(&rest[3..end], 16).expect("digits");
                    (char::from_u32(code).expect("a character").to_string().into_bytes(), end + 1)
                }
                _ => (character.to_string().into_bytes(), character.len_utf8()),
            };
            name.extend(value);
            rest = &rest[length..];
        }
        name
    }

    #[cfg(unix)]
    #[test]
    fn an_escape_can_be_undone_so_that_no_two_names_share_it() {
        use std::os::unix::ffi::OsStrExt;
        // Pieces that are most likely to be taken for each other.
        let pieces: [&[u8]; 14] = [
            b"a",
            b"\\",
            b"x",
            b"ff",
            b"\xff",
            b"\xc3",
            b"\xa9",
            b"u{85}",
            "\u{85}".as_bytes(),
            b"\n",
            b"n",
            b"/",
            "\u{200b}".as_bytes(),
            "é".as_bytes(),
        ];
        let mut draws = Seed(0).stream("names");
        for _ in 0..20_000 {
            let n = draws.bits() % 7;
            let name: Vec<u8> =
                (0..n).flat_map(|_| pieces[(draws.bits() % pieces.len() as u64) as usize]).copied().collect();
            let text = escape(OsStr::from_bytes(&name));
            assert!(is_printable(&text), "{text:?}");
            assert_eq!(unescape(&text), name, "{text}");
        }
    }
}
