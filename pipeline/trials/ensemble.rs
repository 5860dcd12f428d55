//! Several runs as one model: a vote of their networks, or one network with the mean of their weights.

mod page;

use bytes::Bytes;
use forebay_datasets::sample::Split;
use forebay_datasets::store::Store;
use forebay_train::metrics::{Evaluation, EvaluationOptions, Figure, Scored, fit_temperature};
use forebay_train::{
    CLASS_COUNTS, Classifier, LOGIT_PRIOR, Member, Predictor, TEMPERATURE, Vote, fit_vote, mean_of_files,
};
use serde::Serialize;

use crate::feed::{Feed, Pass, Viewing};
use crate::flow::{Error, Run};
use crate::model::{
    Alignment, EnsembleFile, EnsembleMember, ModelKind, NetworkFile, OfRun, feed_for, score, weights_of,
};
use crate::options::{Config, VoteWeights, store_options};
use crate::plan::refuse_folder;
use crate::report::note;
use crate::train::{RunFolder, RunTests, files, train_error};
use crate::weights::seal;

/// A member of an ensemble, and how good it is alone.
#[derive(Clone, Debug, Serialize)]
pub struct MemberScores {
    /// As it was named.
    pub from: String,
    /// The network.
    pub arch: String,
    /// Its share of the vote; `None` where it was left out.
    pub weight: Option<f64>,
    /// What its logits are divided by.
    pub temperature: f64,
    /// Its accuracy on the validation images, where all members have the same.
    pub accuracy: Option<Figure>,
    /// Its mean cross-entropy there.
    pub log_loss: Option<Figure>,
}

/// An ensemble that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Ensembled {
    /// Where it is.
    pub output: String,
    /// `vote` or `soup`.
    pub kind: &'static str,
    /// `soft` or `hard`, of a vote.
    pub vote: Option<&'static str>,
    /// Its members and those that were left out.
    pub members: Vec<MemberScores>,
    /// Every figure of the whole on the validation images, where all members have the same.
    pub validation: Option<Evaluation>,
    /// What the whole said of each of them.
    #[serde(skip)]
    pub scored: Option<Scored>,
}

/// The runs of an ensemble, open.
struct OpenRuns {
    names: Vec<String>,
    networks: Vec<NetworkFile>,
    /// The validation images that all of them have, and none was trained on.
    validation: Option<(Feed, Alignment)>,
    target: Store,
    /// The files of the ensemble that is replaced.
    replaced: Vec<String>,
    /// The first run's files that describe images and classes to other programs.
    described: Vec<(&'static str, Bytes)>,
}

impl OpenRuns {
    /// Deletes the ensemble that is replaced: when the new one is ready to be written.
    async fn discard(&self) -> Result<(), Error> {
        let names: Vec<&str> = self.replaced.iter().map(String::as_str).collect();
        Ok(self.target.delete(&names, is_ours).await?)
    }
}

/// Makes an ensemble of the runs that the options name.
///
/// # Errors
/// [`Error::Usage`] where their classes or chains differ, or the destination is not empty; the first error of the run.
pub async fn ensemble(run: &Run, config: &Config) -> Result<Ensembled, Error> {
    let names = config.places("ensemble.runs");
    let out = config.text("ensemble.out");
    let out = out.ok_or_else(|| Error::Usage("ensemble needs --out DIR".to_string()))?;
    let is_soup = config.is_on("ensemble.soup");
    if names.is_empty() {
        return Err(Error::Usage("ensemble needs two RUNs or more, or one with snapshots".to_string()));
    }
    let (settings, pool) = (config.clone(), run.clone());
    let opening = run.until_stopped(move || async move { open(&pool, names, &out, &settings).await });
    let opened = opening.await?;
    let mut scored = Vec::new();
    if let Some((feed, _)) = &opened.validation {
        feed.begin(run, &[Split::Validation])?;
        for (name, network) in opened.names.iter().zip(&opened.networks) {
            let one = score_one(run, &opened, network.predictor.clone()).await;
            scored.push(one.map_err(|error| match error {
                Error::Failed { .. } => Error::failed(format!("take {name} into the ensemble"), error),
                other => other,
            })?);
        }
    } else {
        note(
            "the runs have no validation images in common that none of them trained on: members weigh the same, and no \
             temperature is fitted",
        );
    }
    let temperatures: Vec<f64> = match scored.is_empty() {
        true => opened.networks.iter().map(|network| network.temperature.unwrap_or(1.0)).collect(),
        false => {
            scored.iter().map(|scored| fit_temperature(scored).map_or(1.0, |fit| fit.usable())).collect()
        }
    };
    let done = match is_soup {
        true => soup(run, config, &opened, &scored, &temperatures).await?,
        false => vote(run, config, &opened, &scored, &temperatures).await?,
    };
    page::write(run, config, &opened, &done).await?;
    Ok(done)
}

/// The members that RUNs stand for: themselves, and of one alone its snapshots.
async fn members_of(runs: Vec<String>, config: &Config) -> Result<Vec<String>, Error> {
    let [run] = &runs[..] else { return Ok(runs) };
    let names = match weights_of(run, config).await? {
        // A file of weights holds no snapshots.
        file if file == *run => vec![],
        _ => RunFolder::open(&config.clone().with("out", &**run))?.names().await?,
    };
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| files::snapshot_number(name)).collect();
    numbers.sort_unstable();
    match numbers.len() {
        0 | 1 => Err(Error::Usage(format!(
            "ensemble needs two RUNs or more, or one with the snapshots of two cycles or more (train --snapshots), and {run} has \
             {}",
            if numbers.is_empty() { "none" } else { "one" }
        ))),
        _ => {
            let run = run.trim_end_matches('/');
            Ok(numbers.into_iter().map(|number| format!("{run}/{}", files::snapshot(number))).collect())
        }
    }
}

async fn open(run: &Run, runs: Vec<String>, out: &str, config: &Config) -> Result<OpenRuns, Error> {
    let names = members_of(runs, config).await?;
    if let Some(twice) = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)) {
        return Err(Error::Usage(format!("{} is named twice: a member votes once", twice.1)));
    }
    let target = Store::open(out, &store_options(config))?;
    refuse_folder("--out", &target, None).await?;
    let replaced = replaced(&target, config).await?;
    let (mut networks, mut runs) = (Vec::new(), Vec::new());
    for name in &names {
        let file = weights_of(name, config).await?;
        networks.push(NetworkFile::open(run, &file, None, config).await?);
        if Store::open(name, &store_options(config)).is_ok_and(|run| run.is_same_place(&target)) {
            return Err(Error::Usage(format!("--out {out} is a member: give another --out")));
        }
        let kind = if file == *name { ModelKind::Weights } else { ModelKind::Run };
        runs.push(OfRun::of_model(name, kind, config).await?);
    }
    refuse_different(&names, &networks)?;
    for source in runs.iter().flatten().filter_map(OfRun::source) {
        let images = Store::open(&source, &store_options(config))?;
        refuse_folder("--out", &target, Some(&images)).await?;
    }
    let first = runs.first().and_then(Option::as_ref);
    let all = |same: fn(&OfRun, &OfRun, &Config) -> bool| {
        first.is_some_and(|first| {
            runs.iter().all(|other| other.as_ref().is_some_and(|other| same(first, other, config)))
        })
    };
    let (is_one, is_tested_as_one) = (all(OfRun::is_split_as), all(OfRun::is_tested_as));
    let mut validation = None;
    if let (true, Some(of_run)) = (is_one, first)
        && let Some(source) = of_run.source()
    {
        let chain = networks[0].predictor.chain();
        let (feed, _) = feed_for(run, config, (&source, &names[0]), chain, Some(of_run)).await?;
        if feed.rows(Split::Validation) > 0 {
            let alignment =
                Alignment::of(feed.classes(), &networks[0].classes, true).map_err(Error::Usage)?;
            validation = Some((feed, alignment));
        }
    }
    let mut described = Vec::new();
    if let Some(of_run) = first {
        let mut kept = vec![files::LABELS, files::CHAIN];
        if is_tested_as_one {
            // Where its images are and how they were split, for `eval`.
            kept.push(files::CONFIG);
        }
        if config.is_on("ensemble.soup") {
            kept.extend([files::TIMM, files::PREPROCESSOR]);
        }
        for name in kept {
            described.extend(of_run.folder.get(name).await?.map(|bytes| (name, bytes)));
        }
    }
    // What is known of the test by one member is known by the whole.
    let tests = runs.iter().flatten().map(|of_run| of_run.tests.clone());
    let of_members = tests.reduce(RunTests::together).unwrap_or_default();
    described.push((files::TESTS, of_members.to_json().into()));
    Ok(OpenRuns { names, networks, validation, target, replaced, described })
}

/// What an ensemble left in a folder, which a new one replaces.
///
/// # Errors
/// [`Error::Usage`] for a folder that holds something, unless `--overwrite` is given and it is an ensemble, or a soup.
async fn replaced(target: &Store, config: &Config) -> Result<Vec<String>, Error> {
    if target.local_root().is_some_and(|root| !root.is_dir()) {
        return Ok(Vec::new());
    }
    let names: Vec<String> = target.list("").await?.into_iter().map(|(name, _)| name).collect();
    let place = target.location();
    let Some(first) = names.first() else { return Ok(names) };
    let has = |name: &str| names.iter().any(|other| other == name);
    // A run has a checkpoint or metrics beside its model, and a soup has neither.
    let is_one = has(EnsembleFile::NAME) || has(files::MODEL) && !has(files::LAST) && !has(files::METRICS);
    match (is_one && names.iter().all(|name| is_ours(name)), config.is_on("overwrite")) {
        (true, true) => Ok(names),
        (true, false) => Err(Error::Usage(format!(
            "{place} holds {first} already: give another --out, or --overwrite to replace the ensemble"
        ))),
        (false, _) => Err(Error::Usage(format!(
            "{place} holds files that are of no ensemble: give another --out, which is new or empty"
        ))),
    }
}

/// Whether an ensemble writes a file of this name.
fn is_ours(name: &str) -> bool {
    name == EnsembleFile::NAME || EnsembleFile::is_member(name) || files::ALL.contains(&name)
}

/// Refuses members of which some have other classes, or prepare images in another way.
fn refuse_different(names: &[String], networks: &[NetworkFile]) -> Result<(), Error> {
    let first = &networks[0];
    for (name, other) in names.iter().zip(networks).skip(1) {
        if other.classes != first.classes {
            let lacks = |these: &[String], others: &[String]| {
                these.iter().find(|class| !others.contains(class)).cloned()
            };
            let (here, there) =
                (lacks(&other.classes, &first.classes), lacks(&first.classes, &other.classes));
            let what = match (here, there) {
                (Some(class), _) => format!("{name} has the class {class}, and {} has not", names[0]),
                (None, Some(class)) => format!("{} has the class {class}, and {name} has not", names[0]),
                (None, None) => {
                    format!("the classes of {name} are in another order than those of {}", names[0])
                }
            };
            return Err(Error::Usage(format!("{what}: members of an ensemble have the same classes")));
        }
        let (ours, theirs) = (first.predictor.chain(), other.predictor.chain());
        if ours != theirs {
            let (ours, theirs) = (ours.properties(), theirs.properties());
            let differs = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
            let what = differs.map_or("its chain".to_string(), |((key, ours), (_, theirs))| {
                format!("{key} {theirs}, and not {ours}")
            });
            return Err(Error::Usage(format!(
                "{name} prepares images differently than {} ({what}): members of an ensemble see the same tensors",
                names[0]
            )));
        }
    }
    Ok(())
}

/// What one network says of the validation images.
async fn score_one(run: &Run, opened: &OpenRuns, predictor: Predictor) -> Result<Scored, Error> {
    let (feed, alignment) = opened.validation.as_ref().expect("there are validation images");
    let member = Member { predictor, weight: 1.0, temperature: 1.0 };
    let classifier = Classifier::new(vec![member], Vote::Soft, opened.networks[0].classes.clone());
    let classifier = classifier.expect("one sound member");
    Ok(score(run, feed, &classifier, alignment, Pass::validation(), &Viewing::default()).await?.scored)
}

fn accuracy(scored: &Scored) -> f64 {
    scored.confusion().accuracy()
}

fn evaluation(run: &Run, scored: &Scored, temperature: f64, config: &Config) -> Result<Evaluation, Error> {
    let options = EvaluationOptions { temperature, seed: config.whole("seed"), ..Default::default() };
    run.install(|| Evaluation::of(scored, &options)).map_err(|error| Error::failed("evaluate", error))
}

/// Every member with its scores; weights are filled in by whoever decides them.
fn members(
    run: &Run,
    opened: &OpenRuns,
    scored: &[Scored],
    temperatures: &[f64],
    config: &Config,
) -> Result<Vec<MemberScores>, Error> {
    let of = |index: usize| {
        let found = scored.get(index).map(|scored| evaluation(run, scored, temperatures[index], config));
        let found = found.transpose()?;
        Ok(MemberScores {
            from: opened.names[index].clone(),
            arch: opened.networks[index].architecture.clone(),
            weight: None,
            temperature: temperatures[index],
            accuracy: found.as_ref().map(|found| found.accuracy),
            log_loss: found.as_ref().map(|found| found.log_loss),
        })
    };
    (0..opened.names.len()).map(of).collect()
}

/// The least share of a fitted vote that a member is kept for.
const SHARE_MIN: f64 = 0.01;

/// A vote of the members.
async fn vote(
    run: &Run,
    config: &Config,
    opened: &OpenRuns,
    scored: &[Scored],
    temperatures: &[f64],
) -> Result<Ensembled, Error> {
    let vote = config.choice::<Vote>("ensemble.vote");
    let n = opened.networks.len();
    let mut weights = vec![1.0 / n as f64; n];
    if config.choice::<VoteWeights>("ensemble.weights") == VoteWeights::Fitted {
        if scored.is_empty() {
            return Err(Error::Usage(
                "ensemble.weights: fitted needs validation images that all runs have and none trained on; give --weights equal"
                    .to_string(),
            ));
        }
        let fitted = fit_vote(&scored.iter().collect::<Vec<_>>(), temperatures);
        weights = fitted.map_err(|line| Error::failed("fit the weights of the vote", line))?;
        let largest = weights.iter().copied().fold(0.0, f64::max);
        weights
            .iter_mut()
            .filter(|weight| **weight < SHARE_MIN.min(largest))
            .for_each(|weight| *weight = 0.0);
        let kept: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= kept);
    }
    let mut listed = members(run, opened, scored, temperatures, config)?;
    let (mut kept, mut files_of) = (Vec::new(), Vec::new());
    for (index, network) in opened.networks.iter().enumerate() {
        if weights[index] == 0.0 {
            continue;
        }
        listed[index].weight = Some(weights[index]);
        let predictor = network.predictor.clone();
        kept.push((index, Member { predictor, weight: weights[index], temperature: temperatures[index] }));
        files_of.push(EnsembleMember {
            file: EnsembleFile::member_file(index + 1),
            from: opened.names[index].clone(),
            weight: weights[index],
            temperature: temperatures[index],
        });
    }
    let classes = opened.networks[0].classes.clone();
    let mut file = EnsembleFile::new(vote, classes.clone(), files_of);
    let counts = opened.networks[0].logit_prior.clone();
    file.validated = opened.validation.is_some();
    file.logit_prior = counts
        .filter(|counts| opened.networks.iter().all(|network| network.logit_prior.as_ref() == Some(counts)));
    let (mut validation, mut of_whole) = (None, None);
    if !scored.is_empty() {
        let of_kept: Vec<usize> = kept.iter().map(|(index, _)| *index).collect();
        let classifier = Classifier::new(kept.into_iter().map(|(_, member)| member).collect(), vote, classes);
        let classifier = classifier.map_err(Error::Usage)?;
        let whole = together(&classifier, &of_kept.iter().map(|index| &scored[*index]).collect::<Vec<_>>())?;
        file.temperature = fit_temperature(&whole).map_or(1.0, |fit| fit.usable());
        validation = Some(evaluation(run, &whole, file.temperature, config)?);
        of_whole = Some(whole);
    }
    opened.discard().await?;
    for (member, index) in
        file.members.iter().zip(listed.iter().enumerate().filter(|(_, m)| m.weight.is_some()))
    {
        opened.target.put(&member.file, opened.networks[index.0].bytes.clone()).await?;
    }
    for (name, bytes) in &opened.described {
        opened.target.put(name, bytes.clone()).await?;
    }
    // Last of all: with it the folder is an ensemble.
    opened.target.put(EnsembleFile::NAME, file.to_json().into()).await?;
    Ok(Ensembled {
        output: opened.target.location().to_string(),
        kind: "vote",
        vote: Some(forebay_datasets::words::Words::name(&vote)),
        members: listed,
        validation,
        scored: of_whole,
    })
}

/// What members that were scored on the same samples say together, by id.
fn together(classifier: &Classifier, members: &[&Scored]) -> Result<Scored, Error> {
    let mut whole = Scored::new(classifier.classes().to_vec());
    for (id, label) in members[0].ids().iter().zip(members[0].labels()) {
        let rows = members.iter().map(|scored| {
            let place = scored.position(id)?;
            Some(vec![scored.logits(place).to_vec()])
        });
        let rows: Option<Vec<_>> = rows.collect();
        let rows =
            rows.ok_or_else(|| Error::failed("join the members' scores", format!("{id} is missing in one")))?;
        let decided = classifier.decide(&rows);
        whole
            .push(id.clone(), *label, &decided[0])
            .map_err(|error| Error::failed("score the images", error))?;
    }
    Ok(whole)
}

/// One network with the mean of the weights of those members that make it better, tried from the best one on (greedy soup,
/// Wortsman et al., arXiv 2203.05482, recipe 1).
async fn soup(
    run: &Run,
    config: &Config,
    opened: &OpenRuns,
    scored: &[Scored],
    temperatures: &[f64],
) -> Result<Ensembled, Error> {
    if scored.is_empty() {
        return Err(Error::Usage(
            "ensemble.soup: a soup is tried on validation images that all runs have and none trained on; leave it out"
                .to_string(),
        ));
    }
    let mut listed = members(run, opened, scored, temperatures, config)?;
    let mut order: Vec<usize> = (0..scored.len()).collect();
    order.sort_by(|a, b| accuracy(&scored[*b]).total_cmp(&accuracy(&scored[*a])));
    let mut taken = vec![order[0]];
    let (mut best, mut bytes) = (scored[order[0]].clone(), opened.networks[order[0]].bytes.to_vec());
    for &index in &order[1..] {
        let tried: Vec<&[u8]> =
            taken.iter().chain([&index]).map(|member| &*opened.networks[*member].bytes).collect();
        let mean = mean_of_files(&tried).map_err(|error| train_error(&opened.names[index], error))?;
        let loaded = run.install(|| Predictor::of_run(&mean));
        let (predictor, _) = loaded.map_err(|error| train_error("the mean of weights", error))?;
        let found = score_one(run, opened, predictor).await?;
        if accuracy(&found) >= accuracy(&best) {
            taken.push(index);
            (best, bytes) = (found, mean);
        }
    }
    for index in &taken {
        listed[*index].weight = Some(1.0 / taken.len() as f64);
    }
    let temperature = fit_temperature(&best).map_or(1.0, |fit| fit.usable());
    let same_counts = taken
        .iter()
        .all(|index| opened.networks[*index].logit_prior == opened.networks[taken[0]].logit_prior);
    let described = seal::describe(&bytes, |file| {
        file.metadata.insert(TEMPERATURE.to_string(), temperature.to_string());
        if !same_counts {
            file.metadata.remove(CLASS_COUNTS);
            file.metadata.remove(LOGIT_PRIOR);
        }
    });
    let described = described.map_err(|error| train_error("the mean of weights", error))?;
    opened.discard().await?;
    for (name, bytes) in &opened.described {
        opened.target.put(name, bytes.clone()).await?;
    }
    opened.target.put(files::MODEL, described.into()).await?;
    Ok(Ensembled {
        output: opened.target.location().to_string(),
        kind: "soup",
        vote: None,
        members: listed,
        validation: Some(evaluation(run, &best, temperature, config)?),
        scored: Some(best),
    })
}
