//! Known sets of weights: which one a repository or a file is, of the lists that the families have.

use crate::models::FAMILIES;
pub use crate::models::known_weights::{KnownWeights, Preprocessing};

/// Every set of weights that is known here.
pub fn known() -> impl Iterator<Item = &'static KnownWeights> {
    FAMILIES.iter().flat_map(|family| family.known)
}

/// The entry of a repository such as `timm/resnet50.a1_in1k`, or of a torchvision name.
pub fn by_id(id: &str) -> Option<&'static KnownWeights> {
    known().find(|known| known.id == id)
}

/// The entry of a file such as `resnet50-0676ba61.pth`, whatever folder it is in.
pub fn by_file(path: &str) -> Option<&'static KnownWeights> {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    known().find(|known| !known.file.is_empty() && known.file == name)
}

/// The digits of a file's SHA-256 that its name promises, by the rule of `torch.hub`: `NAME-` and eight or more
/// hexadecimal digits before the ending.
pub fn promised_digest(path: &str) -> Option<&str> {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let stem = name.strip_suffix(".pth").or_else(|| name.strip_suffix(".pt"))?;
    let (_, digits) = stem.rsplit_once('-')?;
    let is_digest = (8..=64).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_digest.then_some(digits)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::models;

    #[test]
    fn every_entry_is_sound_and_none_is_twice_there() {
        let ids: BTreeSet<&str> = known().map(|known| known.id).collect();
        assert_eq!(ids.len(), known().count());
        for known in known() {
            assert!(known.preprocessing.wanted().problems().is_empty() && known.classes > 1, "{}", known.id);
            assert!(models::named(known.model).is_some(), "{}", known.id);
            assert!(known.file.is_empty() || promised_digest(known.file).is_some(), "{}", known.file);
        }
    }

    #[test]
    fn numbers_are_those_of_the_libraries() {
        let of = |id: &str| by_id(id).expect("it is known").preprocessing;
        // `resize_size` of torchvision's transforms.
        assert_eq!(of("torchvision/resnet50.IMAGENET1K_V1").shorter_side(), 256);
        assert_eq!(of("torchvision/resnet50.IMAGENET1K_V2").shorter_side(), 232);
        assert_eq!(of("torchvision/inception_v3.IMAGENET1K_V1").shorter_side(), 342);
        assert_eq!(of("timm/resnet50.a1_in1k").shorter_side(), 235);
        assert_eq!(of("timm/mobilenetv3_large_100.miil_in21k_ft_in1k").normalize.std, [1.0; 3]);
        assert_eq!(of("timm/mobilenetv3_large_100.ra4_e3600_r224_in1k").normalize.mean, [0.5; 3]);
        assert!(by_id("timm/resnet18.fb_ssl_yfcc100m_ft_in1k").expect("it is known").is_non_commercial());
        assert_eq!(
            by_file("/a/b/resnet50-0676ba61.pth").expect("it is known").id,
            "torchvision/resnet50.IMAGENET1K_V1"
        );
        assert_eq!(promised_digest("x/resnet50-0676ba61.pth"), Some("0676ba61"));
        for name in ["resnet50.pth", "resnet50-x676ba61.pth", "resnet50-06.pth", "a-0676ba61.safetensors"] {
            assert_eq!(promised_digest(name), None, "{name}");
        }
    }
}
