//! Settings as people read them in a plan.

use std::fmt::Write as _;

use forebay_datasets::escape;
use forebay_stages::augment::Augment;
use forebay_stages::balance::BalanceSummary;
use forebay_train::schedule::Shape;

/// Classes of a table before it is cut short.
const CLASSES_MAX: usize = 40;

/// `0.7` as `70`, without needless digits.
fn percent(share: f64) -> String {
    let rounded = (share * 1e4).round() / 100.0;
    rounded.to_string()
}

/// `70 to 100 %`
fn percents([low, high]: [f64; 2]) -> String {
    format!("{} to {} %", percent(low), percent(high))
}

/// What a run does to training images, in the order in which it does it; `off` where it does nothing.
pub fn augment_in_words(augment: Option<&Augment>) -> String {
    let Some(augment) = augment else { return "off".to_string() };
    // A new augmentation is a compile error until it has words here.
    let Augment {
        random_crop,
        random_resized_crop,
        horizontal_flip,
        vertical_flip,
        scale,
        rotation,
        translation,
        color_jitter,
        gaussian_noise,
        random_erasing,
        minority,
    } = augment;
    let of_images = |probability: f64| format!("on {} % of images", percent(probability));
    let parts = [
        random_crop.as_ref().map(|crop| format!("random crop of {} px, padded by {}", crop.side, crop.pad)),
        random_resized_crop.as_ref().map(|crop| {
            let side = crop.side.map(|side| format!(", to {side} px")).unwrap_or_default();
            format!("random resized crop {}{side}", percents(crop.scale))
        }),
        horizontal_flip.as_ref().map(|flip| format!("horizontal flip {}", of_images(flip.probability))),
        vertical_flip.as_ref().map(|flip| format!("vertical flip {}", of_images(flip.probability))),
        scale.as_ref().map(|scale| format!("zoom {}", percents(scale.factor))),
        rotation.as_ref().map(|rotation| format!("rotation up to {} degrees", rotation.degrees)),
        translation.as_ref().map(|translation| {
            let [x, y] = translation.fraction;
            format!("shift up to {} % across and {} % down", percent(x), percent(y))
        }),
        color_jitter.as_ref().map(|jitter| {
            format!(
                "color jitter (brightness {} %, contrast {} %, saturation {} %, hue {} turns)",
                percent(jitter.brightness),
                percent(jitter.contrast),
                percent(jitter.saturation),
                jitter.hue
            )
        }),
        gaussian_noise
            .as_ref()
            .map(|noise| format!("noise of deviation {} {}", noise.sigma, of_images(noise.probability))),
        random_erasing
            .as_ref()
            .map(|erasing| format!("erasing {} {}", percents(erasing.scale), of_images(erasing.probability))),
        minority.as_ref().map(|minority| {
            let which = match &minority.classes[..] {
                [] => format!("below {} of the largest", minority.below),
                classes => classes.join(", "),
            };
            format!("of rare classes ({which}): {}", augment_in_words(Some(&minority.changes)))
        }),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "off".to_string() } else { parts.join(", ") }
}

/// How the learning rate moves after the warm-up; a factor is written in three digits.
pub fn schedule_in_words(shape: &Shape) -> String {
    let steps = |steps: &[u64]| steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    match shape {
        Shape::Constant => "constant".to_string(),
        Shape::Step { every, factor } => format!("times {factor} every {every} steps"),
        Shape::MultiStep { at, factor } => format!("times {factor} after steps {}", steps(at)),
        Shape::Exponential { factor } => format!("times {factor:.5} every step"),
        Shape::Cosine { floor } => format!("cosine to {floor}"),
        Shape::CosineRestarts { period, growth } => {
            format!("cosine to 0 with restarts, the first after {period} steps, each {growth} times as long")
        }
        Shape::Cycles { period } => format!("cosine to 0 in cycles of {period} steps"),
        Shape::OneCycle { warm_share, start_divisor, end_divisor } => format!(
            "one cycle: from 1/{start_divisor} of it up in the first {} % of steps, then down to 1/{} of it",
            percent(*warm_share),
            start_divisor * end_divisor
        ),
        Shape::Polynomial { power } => format!("polynomial to 0, power {power}"),
        Shape::Linear => "linear to 0".to_string(),
    }
}

/// Each class before and after balancing, as lines of a table.
pub fn balance_in_words(classes: &[String], summary: &BalanceSummary) -> String {
    let width = classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(5, 32);
    let mut text = format!("  {:<width$} {:>9} {:>9}\n", "class", "before", "after");
    for (name, class) in classes.iter().zip(&summary.classes).take(CLASSES_MAX) {
        let name = shorten(name, width);
        let capped = match class.wanted {
            Some(wanted) => format!("  (balance.max_repeats kept it below {wanted})"),
            None => String::new(),
        };
        let _ = writeln!(text, "  {name:<width$} {:>9} {:>9}{capped}", class.before, class.after);
    }
    if classes.len() > CLASSES_MAX {
        let _ = writeln!(text, "  … and {} more", classes.len() - CLASSES_MAX);
    }
    text
}

/// A name in at most `width` characters on one line.
pub(crate) fn shorten(name: &str, width: usize) -> String {
    let name = escape::printable(name);
    if name.chars().count() <= width {
        return name.into_owned();
    }
    let kept: String = name.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_and_schedules_read_as_words_and_not_as_code() {
        let preset = |name: &str| augment_in_words(Some(&name.parse().expect("a preset")));
        assert_eq!(preset("light"), "random resized crop 50 to 100 %, horizontal flip on 50 % of images");
        assert_eq!(augment_in_words(None), "off");
        for name in Augment::PRESETS {
            assert!(!preset(name).contains(['{', '"', '_']), "{}", preset(name));
        }
        assert_eq!(schedule_in_words(&Shape::Cosine { floor: 0.0 }), "cosine to 0");
        assert_eq!(
            schedule_in_words(&Shape::MultiStep { at: vec![30, 60], factor: 0.1 }),
            "times 0.1 after steps 30, 60"
        );
        let one_cycle = Shape::OneCycle { warm_share: 0.3, start_divisor: 25.0, end_divisor: 1e4 };
        assert_eq!(
            schedule_in_words(&one_cycle),
            "one cycle: from 1/25 of it up in the first 30 % of steps, then down to 1/250000 of it"
        );
    }
}
