//! Images that are there more than once, as copies or changed a little, within and across splits and classes.

use std::collections::HashMap;

use forebay_datasets::catalog::Catalog;
use forebay_datasets::duplicates::{self, Fingerprint, LinkKind};
use forebay_datasets::sample::{SampleId, Split};
use serde::{Serialize, Serializer};

use super::pass::LookedAt;

/// Images that are there more than once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Duplicates {
    /// Groups of two or more: those in several splits first, then those in several classes, then the largest.
    pub groups: Vec<DuplicateGroup>,
    /// Images that another one of their group stands for already.
    pub superfluous: u64,
    /// Groups with images in several splits: what is tested was seen in training.
    pub across_splits: usize,
    /// Groups with images in several classes: at least one label is wrong.
    pub across_classes: usize,
}

/// The same picture several times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DuplicateGroup {
    /// Whether all of its files are the same, byte by byte.
    pub is_exact: bool,
    /// How its images are alike where they are least so: exact, near (re-encoded or resized), cropped or mirrored.
    #[serde(serialize_with = "in_its_word")]
    pub alike: LinkKind,
    /// Whether its images are in several splits.
    pub across_splits: bool,
    /// Whether its images are in several classes.
    pub across_classes: bool,
    /// Its images, by id.
    pub images: Vec<DuplicateImage>,
}

fn in_its_word<S: Serializer>(kind: &LinkKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(kind)
}

/// An image of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DuplicateImage {
    /// The sample.
    pub id: String,
    /// Its class.
    pub class: String,
    /// The split that the source declares for it; `train` where it declares none.
    pub split: Split,
}

impl Duplicates {
    /// Groups of the images that decode and show the same picture.
    pub(super) fn of(catalog: &Catalog, images: &[LookedAt]) -> Duplicates {
        let whole = (0..).zip(images).filter_map(|(at, image)| Some((at, image.as_ref().ok()?)));
        let (places, facts): (Vec<usize>, Vec<_>) = whole.unzip();
        let ids: Vec<SampleId> = places.iter().map(|at| catalog.entries()[*at].id.clone()).collect();
        let prints: Vec<&Fingerprint> = facts.iter().map(|facts| &facts.print).collect();
        let found = duplicates::find(&ids, &prints);
        let mut kinds: HashMap<u32, LinkKind> = HashMap::new();
        for link in &found.links {
            let kind = kinds.entry(found.group[link.first as usize]).or_insert(link.kind);
            *kind = link.kind.max(*kind);
        }
        let members = found.groups(&ids).into_iter().map(|members| {
            let kind = kinds[&found.group[members[0] as usize]];
            let hash = |member: &u32| facts[*member as usize].hash;
            let is_exact = members.iter().all(|member| hash(member) == hash(&members[0]));
            (is_exact, kind, members.into_iter().map(|member| places[member as usize]).collect())
        });
        Duplicates::among(catalog, members)
    }

    /// Groups of images, each with whether its files are equal, how its images are alike and the places of its entries.
    fn among(catalog: &Catalog, members: impl Iterator<Item = (bool, LinkKind, Vec<usize>)>) -> Duplicates {
        let mut groups: Vec<DuplicateGroup> = members
            .map(|(is_exact, kind, mut places)| {
                places.sort_unstable();
                let image = |at: usize| {
                    let entry = &catalog.entries()[at];
                    let class = catalog.classes()[entry.label as usize].clone();
                    DuplicateImage {
                        id: entry.id.to_string(),
                        class,
                        split: entry.split.unwrap_or(Split::Train),
                    }
                };
                let images: Vec<DuplicateImage> = places.into_iter().map(image).collect();
                let across_splits = images.iter().any(|image| image.split != images[0].split);
                let across_classes = images.iter().any(|image| image.class != images[0].class);
                DuplicateGroup { is_exact, alike: kind, across_splits, across_classes, images }
            })
            .collect();
        groups.sort_by(|a, b| {
            let order =
                |group: &DuplicateGroup| (group.across_splits, group.across_classes, group.images.len());
            order(b).cmp(&order(a)).then(a.images[0].id.cmp(&b.images[0].id))
        });
        Duplicates {
            superfluous: groups.iter().map(|group| group.images.len() as u64 - 1).sum(),
            across_splits: groups.iter().filter(|group| group.across_splits).count(),
            across_classes: groups.iter().filter(|group| group.across_classes).count(),
            groups,
        }
    }

    /// A number for each image: the same for those that show the same picture.
    pub(super) fn groups_of<'a>(&self, ids: impl Iterator<Item = &'a SampleId>) -> Vec<u32> {
        let mut of: HashMap<&str, u32> = HashMap::new();
        for (number, group) in (0..).zip(&self.groups) {
            of.extend(group.images.iter().map(|image| (image.id.as_str(), number)));
        }
        let first = self.groups.len() as u32;
        (first..).zip(ids).map(|(own, id)| of.get(&**id).copied().unwrap_or(own)).collect()
    }

    /// A line for groups in several splits, and one for those in several classes.
    pub(super) fn warnings(&self) -> Vec<String> {
        let first = |differ: fn(&DuplicateImage, &DuplicateImage) -> bool| {
            self.groups.iter().find_map(|group| {
                let first = &group.images[0];
                let other = group.images.iter().find(|image| differ(first, image))?;
                Some(format!("{} and {}", first.id, other.id))
            })
        };
        let others = |n: usize| if n > 1 { format!(", and {} more", n - 1) } else { String::new() };
        let mut lines = Vec::new();
        if let Some(pair) = first(|a, b| a.split != b.split) {
            lines.push(format!(
                "the same image is in several splits, which makes scores too good: {pair}{}",
                others(self.across_splits)
            ));
        }
        if let Some(pair) = first(|a, b| a.class != b.class) {
            lines.push(format!(
                "the same image is in several classes, so that a label is wrong: {pair}{}",
                others(self.across_classes)
            ));
        }
        lines
    }
}
