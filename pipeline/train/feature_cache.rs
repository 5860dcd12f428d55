//! Where the features of frozen parts are kept, as the options say.

use forebay_datasets::store::StoreOptions;

use crate::flow::Error;
use crate::options::{Config, cache_home, store_options};

/// Where the features of frozen parts are kept.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    /// A path or a URL.
    pub place: String,
    /// How a bucket is reached.
    pub options: StoreOptions,
    /// Whether the user chose it: else it holds only what fits in memory.
    pub is_chosen: bool,
    /// Views of an augmented image.
    pub views: Option<u32>,
}

impl FeatureCache {
    /// The cache that the options give, or else the usual one; `None` where there is none.
    pub(super) fn resolve(config: &Config, notes: &mut Vec<String>) -> Result<Option<FeatureCache>, Error> {
        let views = config.integer("train.feature_views").map(|views| views as u32);
        let chosen = config.text("train.feature_cache");
        let is_off = chosen.as_deref() == Some("off");
        let usual = || Some(cache_home()?.join("features").to_string_lossy().into_owned());
        let place = if is_off { None } else { chosen.clone().or_else(usual) };
        let is_chosen = chosen.is_some();
        if !is_off && place.is_none() && config.is_given("train.freeze") {
            notes.push(
                "outputs of frozen layers are not kept for later epochs: neither XDG_CACHE_HOME nor HOME names a folder \
                 that can be used; --feature-cache DIR keeps them"
                    .to_string(),
            );
        }
        match place {
            None if views.is_some() => {
                Err(Error::Plan(vec![match is_off {
                true => "train.feature_views: --feature-cache off keeps no features; leave one of them out",
                false => "train.feature_views: there is no place for features; give --feature-cache DIR",
            }
            .to_string()]))
            }
            place => Ok(place.map(|place| FeatureCache {
                place,
                options: store_options(config),
                is_chosen,
                views,
            })),
        }
    }
}
