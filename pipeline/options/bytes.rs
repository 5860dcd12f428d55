//! Numbers of bytes as people write and read them.

/// Reads a number of bytes such as `1073741824`, `64 MiB` or `2GB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return None,
    };
    let number: f64 = text[..digits].parse().ok()?;
    let bytes = number * factor as f64;
    (bytes >= 1.0 && bytes < (1u64 << 53) as f64).then_some(bytes as u64)
}

/// `1.5 GiB`, for people.
pub fn bytes_in_words(bytes: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} bytes") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_with_their_unit() {
        for (text, bytes) in
            [("1024", 1024), ("1.5 KiB", 1536), ("2GB", 2_000_000_000), ("1g", 1 << 30), ("2 TiB", 2 << 40)]
        {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "-1", "1 XB", "0"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
