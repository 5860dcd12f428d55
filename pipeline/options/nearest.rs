//! Which of some words a person may have meant.

/// The one of some words that may have been meant: the same but for case and separators, or a few letters away.
pub(super) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let wanted = plain(word);
    let (steps, near) =
        words.into_iter().map(|known| (strsim::osa_distance(&wanted, &plain(known)), known)).min()?;
    // Of short words, such as `adm`, one letter; a number that differs is another network and no mistake.
    let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
    let is_near = steps <= wanted.chars().count() / 4 && (steps == 0 || digits(&wanted) == digits(near));
    (is_near && !wanted.is_empty()).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_found_and_nothing_else_is() {
        let names = ["resnet18", "resnet50", "mobilenet_v2", "vgg16_bn", "inception_v3"];
        for (word, near) in [
            ("ResNet18", Some("resnet18")),
            ("resnet_18", Some("resnet18")),
            ("mobilnet_v2", Some("mobilenet_v2")),
            ("VGG16-BN", Some("vgg16_bn")),
            ("inceptionv3", Some("inception_v3")),
            // Another network, and not a slip of the finger.
            ("resnet51", None),
            ("vit_b_16", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), near, "{word}");
        }
    }
}
