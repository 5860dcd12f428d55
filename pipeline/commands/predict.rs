//! `forebay predict`: what a model sees in images, one answer after the other in their order.

mod answers;
mod overlay;

use forebay_datasets::sample::{Fault, Sample, SampleId};
use forebay_datasets::store::Store;
use forebay_datasets::words::Words;
use forebay_stages::collate::Batch;
use forebay_stages::views::Tta;
use forebay_train::Classifier;
use serde::Serialize;

pub use answers::ImageAnswer;
use answers::{Wording, likeliest};

use crate::feed::{PlannedFlow, Unlabelled, ViewedBatch};
use crate::flow::{Error, Items, Run};
use crate::model::{Model, viewing};
use crate::options::{Config, Invocation, PredictFormat, store_options};
use crate::plan::{Purpose, folder_and_file, refuse_folder, refuse_unreached};
use crate::predictions::Predictions;
use crate::report::{Usage, is_read, say, say_as_it_is, say_json, warn};
use crate::train::train_error;

/// What a prediction came to.
#[derive(Clone, Debug, Serialize)]
pub struct Predicted {
    /// The model, as it was named.
    pub model: String,
    /// Images that were found.
    pub images: u64,
    /// Those that could not be read.
    pub rejected: u64,
    /// What logits were divided by.
    pub temperature: f64,
    /// The views of each image.
    pub tta: Tta,
    /// The shares of the classes that probabilities were adjusted to, in the order of the classes.
    pub prior: Option<Vec<f64>>,
    /// Where predictions were written; `None` for stdout.
    pub output: Option<String>,
    /// Where heatmaps were written.
    pub explained: Option<String>,
    /// The largest resident set of the process.
    pub peak_memory_bytes: u64,
}

/// Everything that is settled before the first image is read.
struct Prediction {
    asking: Asking,
    flows: Vec<PlannedFlow>,
    /// What is no image, whatever a classifier would say of it.
    rejects: Vec<(SampleId, Fault)>,
    wording: Wording,
    target: Option<(Store, String)>,
}

/// What is asked of each batch.
#[derive(Clone)]
struct Asking {
    classifier: Classifier,
    /// Views of an image.
    per_image: usize,
    heatmaps: Option<Heatmaps>,
}

/// Where heatmaps go.
#[derive(Clone)]
struct Heatmaps {
    store: Store,
    may_replace: bool,
}

/// Where answers go, and what became of them so far.
struct AnswerSink {
    wording: Wording,
    /// What is written at the end; `None` where lines go to stdout as they come.
    lines: Option<String>,
    /// Every probability, for a table of them.
    table: Predictions,
    rejected: u64,
    first_reject: Option<String>,
}

impl AnswerSink {
    fn take(&mut self, answer: ImageAnswer) {
        if let Err(fault) = &answer.probabilities {
            self.rejected += 1;
            self.first_reject.get_or_insert_with(|| format!("{}: {fault}", answer.id));
            if self.lines.is_some() {
                warn(&[format!("{}: {fault}", answer.id)]);
            }
        }
        let said = self.wording.lines(&answer);
        match (&mut self.lines, self.wording.format, answer.probabilities) {
            (_, PredictFormat::Parquet, Ok(probabilities)) => {
                self.table.push(answer.id, None, None, &probabilities);
            }
            (Some(lines), ..) => lines.push_str(&said),
            (None, ..) => say_as_it_is(&said),
        }
    }

    /// Whether anybody is there to read more.
    fn is_wanted(&self) -> bool {
        self.lines.is_some() || is_read()
    }
}

/// Which format is written.
fn format_of(config: &Config, json: bool) -> Result<PredictFormat, Error> {
    let output = config.text("predict.output");
    let ending = output.as_deref().and_then(|output| folder_and_file(output).1.rsplit_once('.'));
    let by_ending = ending.and_then(|(_, ending)| match ending {
        "txt" => Some(PredictFormat::Text),
        ending => PredictFormat::of_word(ending),
    });
    let format = config.chosen("predict.format").or(by_ending);
    match (format, output.is_some(), json) {
        (Some(PredictFormat::Parquet), false, _) => Err(Error::Usage(
            "predict.format: parquet is no text that could go to stdout: give --output FILE".to_string(),
        )),
        (Some(PredictFormat::Text) | None, false, true) => Ok(PredictFormat::Jsonl),
        (Some(format), ..) => Ok(format),
        (None, false, false) => Ok(PredictFormat::Text),
        (None, true, _) => Err(Error::Usage(format!(
            "predict.output: nothing says in which format: give it an ending of {}, or --format",
            PredictFormat::WORDS.join(", ")
        ))),
    }
}

/// Settles everything, and opens the model.
async fn begin(run: &Run, config: &Config, json: bool) -> Result<(Prediction, Predicted), Error> {
    let needs = |what: &str| Error::Usage(format!("predict needs {what}"));
    let place =
        config.text("model").ok_or_else(|| needs("a MODEL: a run folder, an ensemble, or a weights file"))?;
    let images = config.places("predict.images");
    if images.is_empty() {
        return Err(needs("IMAGES: a file, a folder, or a folder of shards"));
    }
    let format = format_of(config, json)?;
    let found = Unlabelled::find(&images, config).await?;
    let output = config.text("predict.output");
    let target = match &output {
        Some(output) => {
            let target = super::output(config, "--output", output, &images).await?;
            if found.reads(&target.0, &target.1) {
                return Err(Error::Usage(format!(
                    "--output {output} is one of the images: choose another --output"
                )));
            }
            Some(target)
        }
        None => None,
    };
    let explained = config.text("predict.explain");
    let heatmaps = match &explained {
        Some(folder) => {
            refuse_unreached("--explain", folder, Purpose::Output)?;
            let store = Store::open(folder, &store_options(config))?;
            refuse_folder("--explain", &store, None).await?;
            for images in &found.folders {
                refuse_folder("--explain", &store, Some(images)).await?;
            }
            Some(Heatmaps { store, may_replace: config.is_on("overwrite") })
        }
        None => None,
    };
    let model = Model::open(run, &place, config.text("model.arch"), config).await?;
    let viewing = viewing(&model, config).await?;
    if heatmaps.is_some() && !matches!(viewing.tta, Tta::Off | Tta::Flip) {
        return Err(Error::Usage(
            "predict.explain: a heatmap is of the whole image, and the views of --tta are parts of it; leave out one of them"
                .to_string(),
        ));
    }
    let (classifier, prior) = model.adjusted(config).await?;
    let (flows, mut warnings) = found.flows(classifier.chain(), &viewing, config)?;
    warnings.extend(model.warnings.iter().chain(&found.warnings).cloned());
    warn(&warnings);
    let top = (config.whole("predict.top") as usize).min(classifier.classes().len());
    let wording = Wording {
        format,
        classes: classifier.classes().to_vec(),
        top,
        is_single: found.len() == 1,
        id_width: found.longest_id().unwrap_or(24),
    };
    let predicted = Predicted {
        model: place,
        images: found.len(),
        rejected: 0,
        temperature: classifier.temperature(),
        tta: viewing.tta,
        prior,
        output,
        explained,
        peak_memory_bytes: 0,
    };
    let asking = Asking { classifier, per_image: viewing.tta.views(), heatmaps };
    Ok((Prediction { asking, flows, rejects: found.rejects, wording, target }, predicted))
}

impl Asking {
    /// The probabilities of the images of a batch that could be read.
    fn probabilities(&self, run: &Run, viewed: &ViewedBatch<()>) -> Result<Vec<Vec<f32>>, Error> {
        if viewed.batch.is_empty() {
            return Ok(vec![]);
        }
        let rows = run.install(|| self.classifier.logits_of_views(&viewed.batch, self.per_image));
        let rows = rows.map_err(|error| train_error("predict", error))?;
        let probabilities = |(row, sample): (Vec<f32>, &Sample<(), ()>)| {
            let logs = self.classifier.log_probabilities_of(&row);
            match logs.iter().any(|log| log.is_nan()) {
                false => Ok(logs.into_iter().map(f32::exp).collect()),
                true => Err(Error::failed(
                    format!("predict {}", sample.id),
                    "the network gives no numbers: its weights or running statistics are not finite",
                )),
            }
        };
        rows.into_iter().zip(viewed.readable()).map(probabilities).collect()
    }

    /// Writes a heatmap of each image of a batch, for its likeliest class.
    fn explain(&self, run: &Run, viewed: &ViewedBatch<()>, rows: &[Vec<f32>]) -> Result<(), Error> {
        let Some(Heatmaps { store, may_replace }) = &self.heatmaps else { return Ok(()) };
        let firsts = (0..rows.len())
            .map(|image| viewed.batch.rows(image * self.per_image..image * self.per_image + 1));
        let firsts: Vec<Batch> = firsts.collect();
        let side = viewed.batch.side as usize;
        let length = side * overlay::enlargement(side);
        let members = self.classifier.members();
        let total: f64 = members.iter().map(|member| member.weight).sum();
        for (image, (row, sample)) in firsts.iter().zip(rows.iter().zip(viewed.readable())) {
            let class = likeliest(row, 1);
            let mut heat = vec![0f32; length * length];
            for member in members {
                let maps = run.install(|| member.predictor.grad_cam(image, &class));
                let map = maps.map_err(|error| train_error("explain", error))?.remove(0);
                let share = (member.weight / total) as f32;
                heat.iter_mut().zip(map.enlarged(length)).for_each(|(sum, value)| *sum += share * value);
            }
            let png = overlay::png(&image.images, side, &heat);
            let name = overlay::file_name(&sample.id);
            if !may_replace && run.block_on(store.size(&name))?.is_some() {
                return Err(Error::Usage(format!(
                    "{} is there already: choose another --explain, or --overwrite to replace it",
                    store.name(&name)
                )));
            }
            run.block_on(store.put(&name, png.into()))?;
        }
        Ok(())
    }

    /// What takes the batches of a flow and answers each.
    fn answering(
        &self,
        run: &Run,
        mut answers: AnswerSink,
    ) -> impl FnOnce(Items<ViewedBatch<()>>) -> Result<AnswerSink, Error> + Send + 'static {
        let (asking, run) = (self.clone(), run.clone());
        move |batches: Items<ViewedBatch<()>>| {
            for viewed in batches {
                let rows = asking.probabilities(&run, &viewed)?;
                asking.explain(&run, &viewed, &rows)?;
                let mut rows = rows.into_iter();
                for Sample { id, copy, payload, .. } in viewed.samples {
                    let probabilities = payload.map(|()| rows.next().expect("a row for each that was read"));
                    // What balanced shards hold again was answered.
                    if copy == 0 {
                        answers.take(ImageAnswer { id, probabilities });
                    }
                }
                if !answers.is_wanted() {
                    break;
                }
            }
            Ok(answers)
        }
    }
}

/// Predicts images and writes the answers, to stdout as they are made or to a file at the end.
///
/// # Errors
/// [`Error::Usage`] when model, images or options are none or do not belong together; [`Error::Failed`] when the network
/// gives no numbers; the first error of the run. Images that could not be read are counted, and no error here.
pub async fn predict(run: &Run, config: &Config, json: bool) -> Result<(Predicted, Option<String>), Error> {
    let (settings, pool) = (config.clone(), run.clone());
    let beginning = run.until_stopped(move || async move { begin(&pool, &settings, json).await });
    let (Prediction { asking, flows, rejects, wording, target }, mut predicted) = beginning.await?;
    let format = wording.format;
    let header = wording.header();
    let lines = target.is_some().then(|| header.clone());
    if target.is_none() {
        say_as_it_is(&header);
    }
    let table = Predictions::new(asking.classifier.classes().to_vec());
    let mut answers = AnswerSink { wording, lines, table, rejected: 0, first_reject: None };
    for flow in flows {
        answers = flow.start(run).drain("predict", asking.answering(run, answers)).await?;
    }
    for (id, fault) in rejects {
        answers.take(ImageAnswer { id, probabilities: Err(fault) });
    }
    if let Some((store, file)) = target {
        let bytes = match format {
            PredictFormat::Parquet => answers.table.to_parquet(),
            _ => answers.lines.take().unwrap_or_default().into(),
        };
        store.put(&file, bytes).await?;
    }
    predicted.rejected = answers.rejected;
    predicted.peak_memory_bytes = Usage::now().peak_memory_bytes;
    Ok((predicted, answers.first_reject))
}

/// Runs the command.
///
/// # Errors
/// The first error of the run; [`Error::LeftOut`] when an image could not be read, once the others are answered.
pub async fn run(run: &Run, asked: &Invocation) -> Result<(), Error> {
    let (done, first_reject) = predict(run, &asked.config, asked.json).await?;
    if asked.json {
        say_json(&done);
    } else if let Some(output) = &done.output {
        say(&format!("{} images predicted, written to {output}\n", done.images - done.rejected));
    }
    match first_reject {
        None => Ok(()),
        Some(first) if done.rejected == done.images => {
            Err(Error::NothingLeft(format!("no image could be read: {first}")))
        }
        Some(first) => Err(Error::LeftOut(format!(
            "{} of {} images could not be read, and the others are answered: {first}{}",
            done.rejected,
            done.images,
            if done.rejected > 1 { ", and others" } else { "" }
        ))),
    }
}
