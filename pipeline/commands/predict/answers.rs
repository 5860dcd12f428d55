//! What was predicted, as text for people and as lines for programs.

use forebay_datasets::escape;
use forebay_datasets::sample::{Fault, SampleId};
use serde_json::json;

use crate::options::PredictFormat;

/// What a model says of an image.
#[derive(Clone, Debug)]
pub struct ImageAnswer {
    /// Which image.
    pub id: SampleId,
    /// The probability of each class, or why the image could not be read.
    pub probabilities: Result<Vec<f32>, Fault>,
}

/// The classes of the largest probabilities, the likeliest first; of equal ones the first.
pub(super) fn likeliest(probabilities: &[f32], n: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..probabilities.len()).collect();
    classes.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]).then(a.cmp(b)));
    classes.truncate(n);
    classes
}

/// How answers are put into words.
#[derive(Clone, Debug)]
pub(super) struct Wording {
    pub(super) format: PredictFormat,
    pub(super) classes: Vec<String>,
    /// How many classes are named of an image.
    pub(super) top: usize,
    /// Whether there is one image, which people want to see more of.
    pub(super) is_single: bool,
    /// Characters of the longest id, as far as it is known.
    pub(super) id_width: usize,
}

/// The widest columns of a table for people.
const ID_WIDTH_MAX: usize = 60;
const CLASS_WIDTH_MAX: usize = 24;

impl Wording {
    /// What stands before all answers.
    pub(super) fn header(&self) -> String {
        match self.format {
            PredictFormat::Csv => {
                let ranks = (1..=self.top).map(|rank| format!(",class_{rank},probability_{rank}"));
                format!("id{},error\n", ranks.collect::<String>())
            }
            _ => String::new(),
        }
    }

    /// An answer, in lines.
    pub(super) fn lines(&self, answer: &ImageAnswer) -> String {
        match self.format {
            PredictFormat::Text => self.text(answer),
            PredictFormat::Jsonl => self.json(answer),
            PredictFormat::Csv => self.csv(answer),
            PredictFormat::Parquet => String::new(),
        }
    }

    fn text(&self, ImageAnswer { id, probabilities }: &ImageAnswer) -> String {
        let probabilities = match probabilities {
            Ok(probabilities) => probabilities,
            Err(fault) => {
                return escape::terminal(&format!("{}  cannot be read: {fault}\n", self.padded(id)));
            }
        };
        let likeliest = likeliest(probabilities, self.top);
        let name = |class: usize| escape::printable(&self.classes[class]).into_owned();
        if self.is_single {
            let lines = likeliest
                .iter()
                .map(|&class| format!("  {}  {}\n", percent(probabilities[class]), name(class)));
            return escape::terminal(&format!("{id}\n{}", lines.collect::<String>()));
        }
        let longest = self.classes.iter().map(|class| class.chars().count()).max().unwrap_or(0);
        let width = longest.min(CLASS_WIDTH_MAX);
        let cells = likeliest
            .iter()
            .map(|&class| format!("  {}  {:<width$}", percent(probabilities[class]), name(class)));
        let line = format!("{}{}", self.padded(id), cells.collect::<String>());
        escape::terminal(&format!("{}\n", line.trim_end()))
    }

    fn padded(&self, id: &str) -> String {
        let width = if self.is_single { 0 } else { self.id_width.min(ID_WIDTH_MAX) };
        format!("{id:<width$}")
    }

    fn json(&self, ImageAnswer { id, probabilities }: &ImageAnswer) -> String {
        let line = match probabilities {
            Ok(probabilities) => {
                let top: Vec<serde_json::Value> = likeliest(probabilities, self.top)
                    .into_iter()
                    .map(|class| json!({"class": self.classes[class], "probability": decimal(probabilities[class])}))
                    .collect();
                json!({
                    "id": &**id,
                    "prediction": top[0]["class"],
                    "confidence": top[0]["probability"],
                    "top": top,
                })
            }
            Err(fault) => json!({"id": &**id, "error": fault.to_string()}),
        };
        escape::json(&line.to_string()) + "\n"
    }

    fn csv(&self, ImageAnswer { id, probabilities }: &ImageAnswer) -> String {
        let mut line = csv_field(id);
        match probabilities {
            Ok(probabilities) => {
                for class in likeliest(probabilities, self.top) {
                    line += &format!(",{},{}", csv_field(&self.classes[class]), probabilities[class]);
                }
                line += ",";
            }
            Err(fault) => {
                line += &",,".repeat(self.top);
                line += &format!(",{}", csv_field(&fault.to_string()));
            }
        }
        line + "\n"
    }
}

/// The number of the fewest digits that is this one in single precision.
fn decimal(number: f32) -> f64 {
    number.to_string().parse().expect("a number is read as it is written")
}

/// A probability as a percentage of one width.
fn percent(probability: f32) -> String {
    format!("{:5.1} %", 100.0 * probability)
}

/// A field of a CSV file (RFC 4180), of one line that prints.
fn csv_field(text: &str) -> String {
    let text = escape::printable(text);
    let needs_quotes = text.contains([',', '"']) || text != text.trim();
    if needs_quotes { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wording(format: PredictFormat) -> Wording {
        let classes = ["cat", "dog, \"large\"", "owl\n"].map(String::from).to_vec();
        Wording { format, classes, top: 2, is_single: false, id_width: 7 }
    }

    fn answer(id: &str) -> ImageAnswer {
        ImageAnswer { id: id.into(), probabilities: Ok(vec![0.2, 0.7, 0.1]) }
    }

    fn broken() -> ImageAnswer {
        ImageAnswer { id: "b,1.jpg".into(), probabilities: Err(Fault::new("decode", "no image")) }
    }

    #[test]
    fn people_see_a_table_and_of_one_image_a_list() {
        let many = wording(PredictFormat::Text);
        assert_eq!(many.lines(&answer("a.jpg")), "a.jpg     70.0 %  dog, \"large\"   20.0 %  cat\n");
        assert_eq!(many.lines(&broken()), "b,1.jpg  cannot be read: decode: no image\n");
        let single = Wording { is_single: true, ..many };
        assert_eq!(single.lines(&answer("a.jpg")), "a.jpg\n   70.0 %  dog, \"large\"\n   20.0 %  cat\n");
    }

    #[test]
    fn programs_read_back_what_was_written() {
        let json = wording(PredictFormat::Jsonl);
        let line: serde_json::Value = serde_json::from_str(&json.lines(&answer("a.jpg"))).expect("JSON");
        assert_eq!((&line["id"], &line["prediction"]), (&json!("a.jpg"), &json!("dog, \"large\"")));
        assert_eq!(line["top"][1], json!({"class": "cat", "probability": 0.2}));
        let line: serde_json::Value = serde_json::from_str(&json.lines(&broken())).expect("JSON");
        assert_eq!(line, json!({"id": "b,1.jpg", "error": "decode: no image"}));

        let csv = wording(PredictFormat::Csv);
        assert_eq!(csv.header(), "id,class_1,probability_1,class_2,probability_2,error\n");
        assert_eq!(csv.lines(&answer("a.jpg")), "a.jpg,\"dog, \"\"large\"\"\",0.7,cat,0.2,\n");
        assert_eq!(csv.lines(&broken()), "\"b,1.jpg\",,,,,decode: no image\n");
        assert!(!csv_field("owl\n").contains('\n'));
    }

    #[test]
    fn the_likeliest_come_first_and_of_equal_ones_the_first() {
        assert_eq!(likeliest(&[0.1, 0.3, 0.3, 0.3], 3), [1, 2, 3]);
        assert_eq!(likeliest(&[0.6, 0.4], 5), [0, 1]);
    }
}
