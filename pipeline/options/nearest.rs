//! Which of some words a person may have meant.

/// What other programs call a choice, an option or a command of ours, without separators.
const SYNONYMS: &[(&str, &[&str])] = &[
    ("adamw", &["adamweightdecay"]),
    ("cosine", &["cos", "cosineannealing", "onecycle"]),
    ("polynomial", &["poly"]),
    ("crop", &["cover", "fill", "centercrop", "resizecrop"]),
    ("pad", &["contain", "letterbox"]),
    ("squash", &["stretch", "distort", "warp"]),
    ("bicubic", &["cubic"]),
    ("lanczos3", &["lanczos"]),
    ("cross-entropy", &["ce", "crossentropyloss", "categoricalcrossentropy"]),
    ("jpeg", &["jpg"]),
    ("raw", &["ppm", "none", "uncompressed"]),
    ("macro-f1", &["f1", "f1macro"]),
    ("accuracy", &["acc", "valacc", "valaccuracy"]),
    ("loss", &["valloss"]),
    ("over", &["oversample", "oversampling", "upsample"]),
    ("under", &["undersample", "undersampling", "downsample"]),
    ("strong", &["heavy", "hard"]),
    ("light", &["weak", "simple", "basic"]),
    ("f16", &["fp16", "half", "float16"]),
    ("bf16", &["bfloat16"]),
    ("f32", &["fp32", "float32", "full"]),
    ("batch-size", &["bs"]),
    ("fit", &["resizemode", "cropmode"]),
    ("samples-per-shard", &["shardrows", "shardsize", "rowspershard"]),
    ("out", &["dest", "logdir", "savedir"]),
    ("verify", &["check", "validate", "fsck"]),
    ("compare", &["diff", "versus", "mcnemar"]),
    ("inspect", &["info", "stats", "show", "ls"]),
    ("prepare", &["preprocess", "convert", "pack", "build"]),
    ("train", &["finetune", "fit", "run"]),
];

/// The one of some words that may have been meant: the same but for case and separators, what others call it, or a few
/// letters away.
pub(super) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let wanted = plain(word);
    let words: Vec<&str> = words.into_iter().collect();
    let is_synonym = |known: &&&str| {
        SYNONYMS.iter().any(|(name, others)| name == *known && others.contains(&wanted.as_str()))
    };
    if let Some(known) = words.iter().find(is_synonym) {
        return Some(known);
    }
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
        for (word, words, near) in [
            ("CE", vec!["cross-entropy", "focal"], "cross-entropy"),
            ("stretch", vec!["shortest", "crop", "pad", "squash"], "squash"),
            ("jpg", vec!["jpeg", "png", "raw"], "jpeg"),
            ("bs", vec!["split", "batch-size"], "batch-size"),
            ("check", vec!["inspect", "verify"], "verify"),
        ] {
            assert_eq!(nearest(word, words), Some(near), "{word}");
        }
    }
}
