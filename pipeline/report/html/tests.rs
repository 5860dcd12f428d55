//! Pages of fixed values: well-formed, self-contained, within their budget, with every section.

use forebay_datasets::sample::{Pixels, Split};
use forebay_datasets::seed::Seed;
use forebay_train::metrics::{Evaluation, EvaluationOptions, LabelErrors, Scored, Suspect};

use super::*;
use crate::options::Monitor;
use crate::report::{ClassRow, training_curves};

/// What a page is made of, from fixed draws: skill is how far the logit of the true class stands out.
struct Made {
    scored: Scored,
    evaluation: Evaluation,
    suspects: Vec<Suspect>,
}

fn made(classes: &[&str], n: usize, skill: f64) -> Made {
    let mut stream = Seed(7).stream("report");
    let mut scored = Scored::new(classes.iter().map(ToString::to_string).collect());
    for index in 0..n {
        let truth = stream.below(classes.len() as u64) as usize;
        let logits: Vec<f32> = (0..classes.len())
            .map(|class| {
                let near = if (class + 1) % classes.len() == truth { 0.5 * skill } else { 0.0 };
                ((if class == truth { skill } else { near }) + stream.normal()) as f32
            })
            .collect();
        // Some labels are wrong.
        let label = if index % 40 == 7 { (truth + 1) % classes.len() } else { truth };
        scored.push(format!("{}/{index:05}.png", classes[label]).into(), label as u32, &logits).unwrap();
    }
    let options = EvaluationOptions { draws: 50, temperature: 1.2, ..EvaluationOptions::default() };
    let evaluation = Evaluation::of(&scored, &options).unwrap();
    let suspects = LabelErrors::of(&scored, 1.2).unwrap().suspects;
    Made { scored, evaluation, suspects }
}

fn filled(answers: &ScoredAnswers<'_>, budget: u64, side: u32) -> Gallery {
    let mut gallery = Gallery::wanted(answers, budget);
    for (n, id) in answers.scored.ids().iter().enumerate() {
        if gallery.wants(id) {
            let colour = [(n * 37 % 256) as u8, (n * 91 % 256) as u8, (n * 53 % 256) as u8];
            gallery.add(id.clone(), Pixels::new(side, side, colour.repeat((side * side) as usize)));
        }
    }
    gallery
}

fn facts() -> RunFacts {
    RunFacts {
        model: "resnet18".to_string(),
        source: "photos <of> \"cats\" & dogs".to_string(),
        run_file: "source = \"photos\"\n[train]\nepochs = 12\n".to_string(),
    }
}

fn done(made: &Made) -> Trained {
    let epoch = |epoch: u32| {
        let at = f64::from(epoch);
        crate::report::EpochMetrics {
            epoch,
            steps: u64::from(epoch) * 50,
            learning_rate: 1e-3 / at,
            train_loss: 2.0 / at,
            train_accuracy: 1.0 - 0.6 / at,
            validation_loss: Some(2.1 / at + 0.1),
            validation_accuracy: Some(1.0 - 0.7 / at),
            validation_macro_f1: None,
            epochs_without_improvement: 0,
            seconds: 3.0,
            speed: crate::report::Speed::Images(300.0),
        }
    };
    let rows = made.evaluation.per_class.iter().map(|class| ClassRow {
        class: class.class.clone(),
        precision: class.precision.value,
        recall: class.recall.value,
        f1: class.f1.value,
        support: class.support,
    });
    Trained {
        accuracy: made.evaluation.accuracy.value,
        accuracy_interval: Some((made.evaluation.accuracy.low, made.evaluation.accuracy.high)),
        majority: Some(made.evaluation.majority.accuracy),
        test_openings: Some(2),
        temperature: Some(1.2),
        split: Split::Test,
        best_epoch: 9,
        monitor: Monitor::Accuracy,
        stopped_early: false,
        macro_f1: made.evaluation.macro_average.f1.value,
        classes: rows.collect(),
        confusion: made.evaluation.confusion.clone(),
        epochs: (1..=12).map(epoch).collect(),
        found: 5000,
        rejected: 3,
        starved: 0.12,
        validation: None,
    }
}

/// Whether every tag that is opened is closed in order; attributes have no `<` or `>` that is not escaped.
fn assert_is_well_formed(page: &str) {
    const VOID: [&str; 6] = ["meta", "input", "br", "img", "hr", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let (tag, after) = (&rest[..end], &rest[end + 1..]);
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap();
        rest = after;
        if VOID.contains(&name) || tag.ends_with('/') {
            continue;
        }
        match tag.starts_with('/') {
            true => assert_eq!(open.pop(), Some(name), "in {}", &tag[..tag.len().min(80)]),
            false => open.push(name),
        }
        // What a script or a style holds is no markup.
        if ["script", "style"].contains(&name) && !tag.starts_with('/') {
            rest = &rest[rest.find(&format!("</{name}>")).expect("it ends")..];
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    for outside in ["http://", "https://", "//cdn", "@import", "<link", " src="] {
        let page = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!page.contains(outside), "the page names {outside}");
    }
    for none in [">NaN", ">inf", "\"NaN", "NaN,", ",NaN", ":NaN"] {
        assert!(!page.contains(none), "{none} is no number");
    }
}

/// Writes the page where `FOREBAY_PAGES` says, for who wants to look at it.
fn keep(name: &str, page: &str) {
    if let Some(folder) = std::env::var_os("FOREBAY_PAGES") {
        std::fs::write(std::path::Path::new(&folder).join(name), page).unwrap();
    }
}

fn judged<'a>(made: &'a Made, answers: &'a ScoredAnswers<'a>, gallery: &'a Gallery) -> Judged<'a> {
    Judged { evaluation: &made.evaluation, answers, gallery, images: "test images" }
}

fn run_page(made: &Made, budget: u64, side: u32) -> ReportPage {
    let (facts, done) = (facts(), done(made));
    let answers = ScoredAnswers::of(&made.scored, &made.suspects, 1.2);
    let gallery = filled(&answers, budget, side);
    let curves = training_curves(&done.epochs, &[]);
    let prior = |(index, class): (usize, &String)| ClassPrior {
        class: class.clone(),
        images: 500 / (index as u64 + 1),
        rows: 500,
        weight: 1.0 + index as f64,
    };
    let priors: Vec<ClassPrior> = made.scored.classes().iter().enumerate().map(prior).collect();
    let jpeg =
        |value: u8| thumbnail(Pixels::new(side, side, vec![value; (3 * side * side) as usize])).unwrap();
    let example = |n: u8| AugmentedExample {
        id: format!("cat/{n}.png"),
        class: "cat".to_string(),
        views: (0..5).map(|view| jpeg(40 * n + 10 * view)).collect(),
    };
    let examples: Vec<AugmentedExample> = (0..5).map(example).collect();
    let page = RunPage {
        facts: &facts,
        done: &done,
        curves: &curves,
        judged: Some(judged(made, &answers, &gallery)),
        priors: &priors,
        examples: &examples,
        command: "forebay train --config runs/first/config.toml --out runs/again",
    };
    run(&page, budget)
}

const ANIMALS: [&str; 6] =
    ["cat", "dog", "a <b>fox</b>", "owl", "horse & cart", "a class with quite a long name"];

#[test]
fn the_page_of_a_run_is_well_formed_names_nothing_outside_and_shows_every_section() {
    let page = run_page(&made(&ANIMALS, 1500, 2.5), 8 << 20, 32);
    keep("run.html", &page.html);
    assert_is_well_formed(&page.html);
    assert_eq!(page.note, None);
    for id in [
        "confusion",
        "mistakes",
        "unsure",
        "labels",
        "learning",
        "figures",
        "classes",
        "curves",
        "confidence",
        "priors",
        "examples",
        "made",
    ] {
        assert!(page.html.contains(&format!("<section id=\"{id}\">")), "{id}");
        assert!(page.html.contains(&format!("<a href=\"#{id}\">")), "{id}");
    }
    assert!(!page.html.contains("<b>fox</b>"), "a class is markup");
}

#[test]
fn every_cell_with_mistakes_opens_images_of_its_own() {
    let made = made(&ANIMALS, 1500, 2.5);
    let html = run_page(&made, 8 << 20, 32).html;
    for (truth, row) in made.evaluation.confusion.iter().enumerate() {
        for (prediction, count) in row.iter().enumerate() {
            let is_there = |text: &str| html.contains(text);
            let (link, place) = (
                format!("href=\"#cell-{truth}-{prediction}\""),
                format!("<div id=\"cell-{truth}-{prediction}\">"),
            );
            assert_eq!((is_there(&link), is_there(&place)), (*count > 0, *count > 0), "{truth} {prediction}");
            if *count > 0 {
                let panel = html.split(&place).nth(1).unwrap().split("</ul>").next().unwrap();
                assert!(panel.contains("class=\"t t"), "no thumbnail in {truth} {prediction}");
            }
        }
    }
}

#[test]
fn a_page_keeps_to_its_budget_and_says_what_did_not_fit() {
    let made = made(&ANIMALS, 1500, 2.5);
    let whole = run_page(&made, 8 << 20, 96);
    assert!(whole.html.len() < 8 << 20 && whole.note.is_none());
    for budget in [400_000, 200_000] {
        let page = run_page(&made, budget, 96);
        assert!(page.html.len() as u64 <= budget, "{} of {budget}", page.html.len());
        assert_is_well_formed(&page.html);
    }
    let tiny = run_page(&made, 10_000, 96);
    let note = tiny.note.unwrap();
    assert!(note.contains("without any image, more than the 9.8 KiB of --report-bytes"), "{note}");
    assert_is_well_formed(&tiny.html);
}

#[test]
fn pages_of_two_and_of_a_thousand_classes_are_whole() {
    let names: Vec<String> = (0..1000).map(|class| format!("class {class:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (file, classes, n) in [
        ("two.html", &ANIMALS[..2], 300),
        ("fifty.html", &names[..50], 2500),
        ("thousand.html", &names[..], 3000),
    ] {
        let made = made(classes, n, 4.0);
        let answers = ScoredAnswers::of(&made.scored, &made.suspects, 1.2);
        let gallery = filled(&answers, 8 << 20, 96);
        let remarks = ["12 images are of classes that the model does not know".to_string()];
        let asked = EvaluationPage {
            model: "runs/first",
            source: "photos",
            judged: judged(&made, &answers, &gallery),
            remarks: &remarks,
            command: "forebay eval runs/first photos --out eval",
        };
        let page = evaluation(&asked, 8 << 20);
        keep(file, &page.html);
        assert_is_well_formed(&page.html);
        assert!(page.html.len() < 8 << 20, "{}", page.html.len());
        assert_eq!(page.html.contains("class=\"matrix"), classes.len() <= 50, "{file}");
    }
}

#[test]
fn a_search_without_any_score_and_one_with_words_and_numbers_have_pages() {
    let mut stream = Seed(3).stream("trials");
    let parameters = ["optimizer.lr", "loss", "dropout"].map(String::from);
    let trials: Vec<TrialRow> = (1..=40)
        .map(|number| {
            let lr = 10f64.powf(stream.range(-5.0, -1.0));
            let loss = ["cross-entropy", "focal", "ldam"][stream.below(3) as usize];
            let score = 0.9 - 0.03 * (lr.log10() + 3.0).powi(2) + 0.01 * stream.normal();
            TrialRow {
                number,
                values: vec![
                    Some(format!("{lr:.3e}")),
                    Some(loss.to_string()),
                    (number % 3 > 0).then(|| format!("{:.2}", stream.range(0.0, 0.6))),
                ],
                score: (number % 9 != 4).then_some(score),
                end: if number % 9 == 4 { "failed: <out of memory>" } else { "done" }.to_string(),
                seconds: 2.0,
            }
        })
        .collect();
    let importance =
        [("optimizer.lr".to_string(), 0.81), ("loss".to_string(), 0.12), ("dropout".to_string(), 0.02)];
    let page = TuningPage {
        title: "Search on photos",
        lead: "40 trials in 80 s; the best has a validation accuracy of 90.4 %.",
        score_name: "validation accuracy",
        lower_is_better: false,
        parameters: &parameters,
        trials: &trials,
        importance: &importance,
        best: Some(17),
        best_command: "forebay train --config tune/best.toml --out runs/best",
        command: "forebay tune --config tune.toml --out tune",
        run_file: "[tune]\n",
    };
    let whole = tuning(&page, 8 << 20).html;
    keep("tuning.html", &whole);
    assert_is_well_formed(&whole);
    assert!(whole.contains("★") && whole.contains("failed: &lt;out of memory&gt;"));
    let none: Vec<TrialRow> = trials.iter().map(|trial| TrialRow { score: None, ..trial.clone() }).collect();
    let page = TuningPage { trials: &none, importance: &[], best: None, best_command: "", ..page };
    assert_is_well_formed(&tuning(&page, 8 << 20).html);
    assert_is_well_formed(&tuning(&TuningPage { trials: &[], ..page }, 8 << 20).html);
}

#[test]
fn the_page_of_an_ensemble_has_its_members_beside_the_whole() {
    let made = made(&ANIMALS, 800, 2.5);
    let answers = ScoredAnswers::of(&made.scored, &made.suspects, 1.2);
    let gallery = filled(&answers, 1 << 20, 32);
    let member = |n: u32| MemberRow {
        name: format!("runs/{n}"),
        network: "resnet18".to_string(),
        weight: (n < 3).then_some(1.0 / 3.0),
        accuracy: Some(made.evaluation.accuracy),
        log_loss: Some(made.evaluation.log_loss),
    };
    let members: Vec<MemberRow> = (0..4).map(member).collect();
    let page = EnsemblePage {
        title: "runs/abc",
        lead: "A soft vote of three runs with equal weights.",
        members: &members,
        judged: Some(judged(&made, &answers, &gallery)),
        command: "forebay ensemble runs/0 runs/1 runs/2 --out runs/abc",
    };
    let page = ensemble(&page, 8 << 20);
    keep("ensemble.html", &page.html);
    assert_is_well_formed(&page.html);
    assert!(page.html.contains("all together") && page.html.contains("left out"));
}

#[test]
fn plots_stand_alone_as_files() {
    let made = made(&ANIMALS, 500, 2.0);
    for (name, svg) in evaluation_plots(&made.evaluation) {
        assert!(
            svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"),
            "{name}"
        );
        assert_is_well_formed(&svg);
    }
}
