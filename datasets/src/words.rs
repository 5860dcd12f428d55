//! An enum that is chosen by a word owns its words: names, parsing and lists for people come from one place.

/// An enum whose variants have names that people write: in a run file, on the command line, in a manifest.
///
/// Made by [`words!`](crate::words!), whose `match` over the variants makes one without a word a compile error.
pub trait Words: Sized + Clone + 'static {
    /// Every variant, in the order in which a help text lists them; one that carries numbers has their defaults.
    const ALL: &'static [Self];
    /// The words of [`ALL`](Words::ALL), in its order.
    const WORDS: &'static [&'static str];

    /// The word of this variant.
    fn name(&self) -> &'static str;

    /// The variant of a word; `None` for one that is not among [`WORDS`](Words::WORDS).
    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|variant| variant.name() == word).cloned()
    }
}

/// Gives an enum its words: [`Words`](crate::words::Words), `Display` and `FromStr`.
///
/// ```
/// use forebay_datasets::words::Words;
///
/// #[derive(Clone, Debug, PartialEq)]
/// enum Ink {
///     Black,
///     Mixed { red: u8 },
/// }
/// forebay_datasets::words!(Ink { Black => "black", Mixed { red: 90 } => "mixed" });
///
/// assert_eq!(Ink::Mixed { red: 3 }.name(), "mixed");
/// assert_eq!("mixed".parse(), Ok(Ink::Mixed { red: 90 }));
/// assert_eq!("blue".parse::<Ink>(), Err("\"blue\" is not one of black, mixed".to_string()));
/// ```
#[macro_export]
macro_rules! words {
    ($type:ident { $($variant:ident $({ $($field:ident : $value:expr),* $(,)? })? => $word:literal),+ $(,)? }) => {
        impl $crate::words::Words for $type {
            const ALL: &'static [$type] = &[$($type::$variant $({ $($field: $value),* })?),+];
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn name(&self) -> &'static str {
                match self {
                    $($type::$variant { .. } => $word),+
                }
            }
        }

        impl ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad($crate::words::Words::name(self))
            }
        }

        impl ::std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> ::std::result::Result<$type, String> {
                <$type as $crate::words::Words>::of_word(text).ok_or_else(|| {
                    let words = <$type as $crate::words::Words>::WORDS.join(", ");
                    format!("{text:?} is not one of {words}")
                })
            }
        }
    };
}

/// Up to five names, and how many more there are.
pub fn few(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(AsRef::as_ref).collect();
    match names.len() {
        0..=5 => shown.join(", "),
        n => format!("{} and {} more", shown.join(", "), n - 5),
    }
}
