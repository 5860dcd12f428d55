//! Datasets in other clouds and on the web: a small server that speaks as each of them does, and what the program makes
//! of its answers.

mod server;

use self::server::{Answer, Fake, png_files};
use crate::fixture::Place;

/// A place with the credentials of a fake Google Cloud Storage, or of a fake Azure.
fn place(fake: &Fake, scheme: &str) -> Place {
    let mut place = Place::new();
    place.set("FOREBAY_PATIENCE", "0.03");
    match scheme {
        "gs" => {
            place.set("GOOGLE_BEARER_TOKEN", "geheim-token");
            place.set("GOOGLE_BASE_URL", &format!("http://{}", fake.address));
        }
        _ => {
            place.set("AZURE_STORAGE_ACCOUNT_NAME", "me");
            place.set("AZURE_STORAGE_ACCOUNT_KEY", "Z2VoZWltLXRva2VuLWlzLWl0");
            place.set("AZURE_STORAGE_ENDPOINT", &format!("http://{}", fake.address));
        }
    }
    place
}

#[test]
fn a_dataset_is_prepared_from_and_to_the_buckets_of_other_clouds() {
    for scheme in ["gs", "az"] {
        let fake = Fake::start(|_| None);
        for (name, bytes) in png_files(12) {
            fake.put(&format!("/pictures/in/{name}"), bytes);
        }
        let place = place(&fake, scheme);
        let inspected = place.run(&format!("inspect {scheme}://pictures/in --json")).done();
        assert_eq!(inspected.json()["found"], 12, "{scheme}: {}", inspected.stdout);
        let prepare = format!("prepare {scheme}://pictures/in {scheme}://pictures/out --size 8 --encode png");
        let prepare = format!("{prepare} --samples-per-shard 5 --split none --json");
        let said = place.run(&prepare).done();
        assert_eq!(said.json()["samples"]["written"].as_u64().unwrap_or(12), 12, "{}", said.stdout);
        place.run(&format!("verify {scheme}://pictures/out")).done();
        // The same bytes as on a disk.
        for (name, bytes) in png_files(12) {
            place.write(&format!("in/{name}"), &bytes);
        }
        place.run("prepare in out --size 8 --encode png --samples-per-shard 5 --split none").done();
        for (name, bytes) in place.files("out").into_iter().filter(|(name, _)| name != "plan.json") {
            assert!(fake.get(&format!("/pictures/out/{name}")) == Some(bytes), "{scheme}: {name} differs");
        }
        // And they go where others take their place.
        let other = prepare.replace("--samples-per-shard 5", "--samples-per-shard 4 --overwrite");
        place.run(&other).done();
        place.run(&format!("verify {scheme}://pictures/out")).done();
        assert_eq!(fake.keys("/pictures/out/data/").len(), 3, "{scheme}: {:?}", fake.keys("/pictures/out/"));
        let asked = fake.asked();
        assert!(
            asked.iter().all(|asked| asked.headers.contains("authorization:")),
            "every request is signed"
        );
        assert!(
            asked.iter().any(|asked| asked.target.contains("marker=") || asked.target.contains("-token=")),
            "{scheme}: the listing has pages"
        );
        let heard = [inspected.stdout, inspected.stderr, said.stdout, said.stderr].concat();
        assert!(!heard.contains("geheim-token") && !heard.contains("Z2VoZWlt"), "the secret was printed");
    }
}

#[test]
fn a_public_bucket_is_read_without_credentials_and_another_one_says_what_is_missing() {
    for scheme in ["gs", "az"] {
        let fake = Fake::start(|_| None);
        for (name, bytes) in png_files(4) {
            fake.put(&format!("/pictures/in/{name}"), bytes);
        }
        let mut place = Place::new();
        place.set("AZURE_STORAGE_ACCOUNT_NAME", "me");
        let at = format!("--endpoint http://{}", fake.address);
        place.run(&format!("inspect {scheme}://pictures/in --anonymous {at}")).done();
        assert!(fake.asked().iter().all(|asked| !asked.headers.contains("authorization:")));
        let said =
            place.run(&format!("inspect {scheme}://pictures/in {at}")).refused(2, "no credentials: set ");
        assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);

        let denying = Fake::start(|_| Some(Answer::refusal(403, "AccessDenied")));
        let at = format!("--endpoint http://{}", denying.address);
        let said = place.run(&format!("inspect {scheme}://pictures/in --anonymous {at}"));
        assert!(said.code != 0 && said.stderr.contains("is not public"), "{}", said.stderr);
    }
}

#[test]
fn a_container_that_is_not_there_is_called_so() {
    for (scheme, code, says) in [
        ("gs", "NoSuchBucket", "there is no bucket called pictures"),
        ("az", "ContainerNotFound", "there is no container called pictures"),
    ] {
        let fake = Fake::start(move |_| Some(Answer::refusal(404, code)));
        place(&fake, scheme).run(&format!("inspect {scheme}://pictures/in")).refused(1, says);
    }
    let fake = Fake::start(|_| Some(Answer::page(200)));
    for scheme in ["gs", "az"] {
        let said = place(&fake, scheme).run(&format!("inspect {scheme}://pictures/in"));
        said.refused(1, "the server answered with something else than");
    }
}
