//! Known sets of weights: what they were trained for, under which licence, and how their images were prepared.
//!
//! The preparation belongs to the weights: other means, another interpolation or another crop cost accuracy and
//! raise no error. The numbers are those of torchvision 0.29 and of timm 1.0.31 (`pretrained_cfg`).

use forebay_stages::chain::Wanted;
use forebay_stages::normalize::Normalize;
use forebay_stages::resize::{Filter, Fit};

/// How an image becomes the input of a network: the shorter side is resized to [`shorter_side`], the centre
/// square of `size` is cut out, values are divided by 255, and normalised.
///
/// [`shorter_side`]: Preprocessing::shorter_side
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// The side of the input, in pixels.
    pub size: u32,
    /// The side of the input over the shorter side of the resized image, in `(0, 1]`.
    pub crop_pct: f64,
    /// How pixels are interpolated.
    pub filter: Filter,
    /// Mean per channel of values from 0 to 1.
    pub mean: [f32; 3],
    /// Standard deviation per channel.
    pub std: [f32; 3],
}

/// Mean and standard deviation of ImageNet's training images.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
/// Values from -1 to 1.
const HALF: [[f32; 3]; 2] = [[0.5; 3], [0.5; 3]];
/// Values from 0 to 1.
const NONE: [[f32; 3]; 2] = [[0.0; 3], [1.0; 3]];

impl Preprocessing {
    /// What is assumed of weights about which nothing is known: 224 pixels cut out of 256, bilinear, ImageNet's
    /// mean and standard deviation.
    pub const IMAGENET: Preprocessing = Preprocessing {
        size: 224,
        crop_pct: 0.875,
        filter: Filter::Bilinear,
        mean: IMAGENET[0],
        std: IMAGENET[1],
    };

    /// The shorter side before the crop, in pixels: `floor(size / crop_pct)`, as in timm.
    pub fn shorter_side(&self) -> u32 {
        (f64::from(self.size) / self.crop_pct).floor() as u32
    }

    /// What weights that were trained so ask of the images of others.
    pub fn wanted(&self) -> Wanted {
        let Preprocessing { size, crop_pct, filter, mean, std } = *self;
        Wanted {
            side: Some(size),
            fit: Some(Fit::Crop),
            crop_pct: Some(crop_pct),
            filter: Some(filter),
            background: None,
            normalize: Some(Normalize { mean, std }),
        }
    }
}

/// A set of weights that people publish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnownWeights {
    /// `timm/NAME.TAG`, the name of its repository, or `torchvision/NAME.TAG`.
    pub id: &'static str,
    /// The network, by torchvision's name.
    pub model: &'static str,
    /// The licence by its SPDX name in lower case.
    pub licence: &'static str,
    /// How its images were prepared.
    pub preprocessing: Preprocessing,
    /// Classes of its classifier.
    pub classes: usize,
    /// The name of its `.pth` file, which ends in the first eight hexadecimal digits of its SHA-256; empty where
    /// there is none.
    pub file: &'static str,
}

impl KnownWeights {
    /// True where the licence forbids commercial use.
    pub fn is_non_commercial(&self) -> bool {
        self.licence.contains("-nc-")
    }
}

/// The entry of a repository such as `timm/resnet50.a1_in1k`, or of a torchvision name.
pub fn by_id(id: &str) -> Option<&'static KnownWeights> {
    KNOWN.iter().find(|known| known.id == id)
}

/// The entry of a file such as `resnet50-0676ba61.pth`, whatever folder it is in.
pub fn by_file(path: &str) -> Option<&'static KnownWeights> {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    KNOWN.iter().find(|known| !known.file.is_empty() && known.file == name)
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

#[allow(clippy::too_many_arguments, reason = "a row of a table")]
const fn known(
    id: &'static str,
    model: &'static str,
    licence: &'static str,
    size: u32,
    crop_pct: f64,
    filter: Filter,
    [mean, std]: [[f32; 3]; 2],
    classes: usize,
    file: &'static str,
) -> KnownWeights {
    let preprocessing = Preprocessing { size, crop_pct, filter, mean, std };
    KnownWeights { id, model, licence, preprocessing, classes, file }
}

/// Every set of weights that is known here.
///
/// torchvision's InceptionV3 takes images normalised as ImageNet and turns them into values from -1 to 1 itself
/// (`transform_input`); the row gives the values that its first convolution sees.
#[rustfmt::skip]
pub const KNOWN: &[KnownWeights] = &[
    known("torchvision/vgg11.IMAGENET1K_V1", "vgg11", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg11-8a719046.pth"),
    known("torchvision/vgg11_bn.IMAGENET1K_V1", "vgg11_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg11_bn-6002323d.pth"),
    known("torchvision/vgg13.IMAGENET1K_V1", "vgg13", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg13-19584684.pth"),
    known("torchvision/vgg13_bn.IMAGENET1K_V1", "vgg13_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg13_bn-abd245e5.pth"),
    known("torchvision/vgg16.IMAGENET1K_V1", "vgg16", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg16-397923af.pth"),
    known("torchvision/vgg16_bn.IMAGENET1K_V1", "vgg16_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg16_bn-6c64b313.pth"),
    known("torchvision/vgg19.IMAGENET1K_V1", "vgg19", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg19-dcbb9e9d.pth"),
    known("torchvision/vgg19_bn.IMAGENET1K_V1", "vgg19_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "vgg19_bn-c79401a0.pth"),
    known("torchvision/resnet18.IMAGENET1K_V1", "resnet18", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet18-f37072fd.pth"),
    known("torchvision/resnet34.IMAGENET1K_V1", "resnet34", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet34-b627a593.pth"),
    known("torchvision/resnet50.IMAGENET1K_V1", "resnet50", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet50-0676ba61.pth"),
    known("torchvision/resnet50.IMAGENET1K_V2", "resnet50", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "resnet50-11ad3fa6.pth"),
    known("torchvision/resnet101.IMAGENET1K_V1", "resnet101", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet101-63fe2227.pth"),
    known("torchvision/resnet101.IMAGENET1K_V2", "resnet101", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "resnet101-cd907fc2.pth"),
    known("torchvision/inception_v3.IMAGENET1K_V1", "inception_v3", "bsd-3-clause", 299, 0.874, Filter::Bilinear, HALF, 1000, "inception_v3_google-0cc3c7bd.pth"),
    known("torchvision/mobilenet_v2.IMAGENET1K_V1", "mobilenet_v2", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v2-b0353104.pth"),
    known("torchvision/mobilenet_v2.IMAGENET1K_V2", "mobilenet_v2", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v2-7ebf99e0.pth"),
    known("torchvision/mobilenet_v3_small.IMAGENET1K_V1", "mobilenet_v3_small", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v3_small-047dcff4.pth"),
    known("torchvision/mobilenet_v3_large.IMAGENET1K_V1", "mobilenet_v3_large", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v3_large-8738ca79.pth"),
    known("torchvision/mobilenet_v3_large.IMAGENET1K_V2", "mobilenet_v3_large", "bsd-3-clause", 224, 0.9655, Filter::Bilinear, IMAGENET, 1000, "mobilenet_v3_large-5c1a4163.pth"),
    known("torchvision/efficientnet_b0.IMAGENET1K_V1", "efficientnet_b0", "bsd-3-clause", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "efficientnet_b0_rwightman-7f5810bc.pth"),
    known("timm/vgg11.tv_in1k", "vgg11", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg11_bn.tv_in1k", "vgg11_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg13.tv_in1k", "vgg13", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg13_bn.tv_in1k", "vgg13_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg16.tv_in1k", "vgg16", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg16_bn.tv_in1k", "vgg16_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg19.tv_in1k", "vgg19", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/vgg19_bn.tv_in1k", "vgg19_bn", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, ""),
    known("timm/resnet18.a1_in1k", "resnet18", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet18_a1_0-d63eafa0.pth"),
    known("timm/resnet18.a2_in1k", "resnet18", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet18_a2_0-b61bd467.pth"),
    known("timm/resnet18.a3_in1k", "resnet18", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet18_a3_0-40c531c8.pth"),
    known("timm/resnet18.fb_ssl_yfcc100m_ft_in1k", "resnet18", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_supervised_resnet18-d92f0530.pth"),
    known("timm/resnet18.fb_swsl_ig1b_ft_in1k", "resnet18", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_weakly_supervised_resnet18-118f1556.pth"),
    known("timm/resnet18.gluon_in1k", "resnet18", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet18_v1b-0757602b.pth"),
    known("timm/resnet18.tv_in1k", "resnet18", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet18-f37072fd.pth"),
    known("timm/resnet34.a1_in1k", "resnet34", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet34_a1_0-46f8f793.pth"),
    known("timm/resnet34.a2_in1k", "resnet34", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet34_a2_0-82d47d71.pth"),
    known("timm/resnet34.a3_in1k", "resnet34", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet34_a3_0-a20cabb6.pth"),
    known("timm/resnet34.bt_in1k", "resnet34", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet34-43635321.pth"),
    known("timm/resnet34.gluon_in1k", "resnet34", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet34_v1b-c6d82d59.pth"),
    known("timm/resnet34.ra4_e3600_r224_in1k", "resnet34", "apache-2.0", 224, 0.9, Filter::Bicubic, HALF, 1000, ""),
    known("timm/resnet34.tv_in1k", "resnet34", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet34-b627a593.pth"),
    known("timm/resnet50.a1_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_a1_0-14fe96d1.pth"),
    known("timm/resnet50.a1h_in1k", "resnet50", "apache-2.0", 176, 0.9, Filter::Bicubic, IMAGENET, 1000, "resnet50_a1h2_176-001a1197.pth"),
    known("timm/resnet50.a2_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_a2_0-a2746f79.pth"),
    known("timm/resnet50.a3_in1k", "resnet50", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_a3_0-59cae1ef.pth"),
    known("timm/resnet50.am_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet50_am-6c502b37.pth"),
    known("timm/resnet50.b1k_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_b1k-532a802a.pth"),
    known("timm/resnet50.b2k_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_b2k-1ba180c1.pth"),
    known("timm/resnet50.bt_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "rw_resnet50-86acaeed.pth"),
    known("timm/resnet50.c1_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_c1-5ba5e060.pth"),
    known("timm/resnet50.c2_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_c2-d01e05b2.pth"),
    known("timm/resnet50.d_in1k", "resnet50", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet50_d-f39db8af.pth"),
    known("timm/resnet50.fb_ssl_yfcc100m_ft_in1k", "resnet50", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_supervised_resnet50-08389792.pth"),
    known("timm/resnet50.fb_swsl_ig1b_ft_in1k", "resnet50", "cc-by-nc-4.0", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "semi_weakly_supervised_resnet50-16a12f1b.pth"),
    known("timm/resnet50.gluon_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet50_v1b-0ebe02e2.pth"),
    known("timm/resnet50.ra_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet50_ra-85ebb6e5.pth"),
    known("timm/resnet50.ram_in1k", "resnet50", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "resnet50_ram-a26f946b.pth"),
    known("timm/resnet50.tv2_in1k", "resnet50", "bsd-3-clause", 176, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet50-11ad3fa6.pth"),
    known("timm/resnet50.tv_in1k", "resnet50", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet50-0676ba61.pth"),
    known("timm/resnet101.a1_in1k", "resnet101", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a1_0-cdcb52a9.pth"),
    known("timm/resnet101.a1h_in1k", "resnet101", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a1h-36d3f2aa.pth"),
    known("timm/resnet101.a2_in1k", "resnet101", "apache-2.0", 224, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a2_0-6edb36c7.pth"),
    known("timm/resnet101.a3_in1k", "resnet101", "apache-2.0", 160, 0.95, Filter::Bicubic, IMAGENET, 1000, "resnet101_a3_0-1db14157.pth"),
    known("timm/resnet101.gluon_in1k", "resnet101", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "gluon_resnet101_v1b-3b017079.pth"),
    known("timm/resnet101.tv2_in1k", "resnet101", "bsd-3-clause", 176, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet101-cd907fc2.pth"),
    known("timm/resnet101.tv_in1k", "resnet101", "bsd-3-clause", 224, 0.875, Filter::Bilinear, IMAGENET, 1000, "resnet101-63fe2227.pth"),
    known("timm/inception_v3.gluon_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, IMAGENET, 1000, ""),
    known("timm/inception_v3.tf_adv_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, HALF, 1000, ""),
    known("timm/inception_v3.tf_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, HALF, 1000, ""),
    known("timm/inception_v3.tv_in1k", "inception_v3", "apache-2.0", 299, 0.875, Filter::Bicubic, HALF, 1000, "inception_v3_google-1a9a5a14.pth"),
    known("timm/mobilenetv2_100.ra_in1k", "mobilenet_v2", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "mobilenetv2_100_ra-b33bc2c4.pth"),
    known("timm/mobilenetv3_small_100.lamb_in1k", "mobilenet_v3_small", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "mobilenetv3_small_100_lamb-266a294c.pth"),
    known("timm/mobilenetv3_large_100.miil_in21k", "mobilenet_v3_large", "apache-2.0", 224, 0.875, Filter::Bilinear, NONE, 11221, "mobilenetv3_large_100_in21k_miil-d71cc17b.pth"),
    known("timm/mobilenetv3_large_100.miil_in21k_ft_in1k", "mobilenet_v3_large", "apache-2.0", 224, 0.875, Filter::Bilinear, NONE, 1000, "mobilenetv3_large_100_1k_miil_78_0-66471c13.pth"),
    known("timm/mobilenetv3_large_100.ra4_e3600_r224_in1k", "mobilenet_v3_large", "apache-2.0", 224, 0.95, Filter::Bicubic, HALF, 1000, ""),
    known("timm/mobilenetv3_large_100.ra_in1k", "mobilenet_v3_large", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "mobilenetv3_large_100_ra-f55367f5.pth"),
    known("timm/efficientnet_b0.ra4_e3600_r224_in1k", "efficientnet_b0", "apache-2.0", 224, 0.9, Filter::Bicubic, HALF, 1000, ""),
    known("timm/efficientnet_b0.ra_in1k", "efficientnet_b0", "apache-2.0", 224, 0.875, Filter::Bicubic, IMAGENET, 1000, "efficientnet_b0_ra-3dd342df.pth"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_entry_is_sound_and_none_is_twice_there() {
        let ids: BTreeSet<&str> = KNOWN.iter().map(|known| known.id).collect();
        assert_eq!(ids.len(), KNOWN.len());
        for known in KNOWN {
            assert!(known.preprocessing.wanted().problems().is_empty() && known.classes > 1, "{}", known.id);
            assert!(super::super::names::Family::of(known.model).is_some(), "{}", known.id);
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
        assert_eq!(of("timm/mobilenetv3_large_100.miil_in21k_ft_in1k").std, [1.0; 3]);
        assert_eq!(of("timm/mobilenetv3_large_100.ra4_e3600_r224_in1k").mean, [0.5; 3]);
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
