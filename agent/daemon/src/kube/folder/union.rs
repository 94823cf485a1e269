//! What several files hold together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::File;
use crate::kube::{Object, ObjectId, Objects};

/// The objects of all files. Of an object that is there more than once that of the first file, by name, counts.
#[derive(Debug, Default)]
pub(super) struct Union {
    objects: Objects,
    /// Of an object that is there more than once, the files that hold it, in order, each as often as it does.
    repeated: BTreeMap<ObjectId, Vec<String>>,
}

/// `new`, where an object is equal to one of `old` that one.
pub(super) fn shared(old: &[Object], new: Vec<Object>) -> Vec<Object> {
    let old = first_of_each(old);
    let known =
        |object: &Object| old.get(&object.id()).map(|(known, _)| *known).filter(|known| *known == object);
    new.into_iter().map(|object| known(&object).cloned().unwrap_or(object)).collect()
}

/// The first object of each id, and how many there are of it.
fn first_of_each(objects: &[Object]) -> HashMap<ObjectId, (&Object, usize)> {
    let mut found = HashMap::with_capacity(objects.len());
    for object in objects {
        found.entry(object.id()).or_insert((object, 0)).1 += 1;
    }
    found
}

impl Union {
    pub(super) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// One line for each object that does not count, as another of its id does.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.repeated.iter().flat_map(|(id, files)| {
            let first = &files[0];
            let rest = files[1..].iter();
            rest.map(move |file| {
                format!("{id}: is in {first} and again in {file}; the first counts, remove one of them")
            })
        })
    }

    /// File `name`, which held `old`, holds `new`. `others` are the other files.
    pub(super) fn replace(
        &mut self,
        name: &str,
        old: &[Object],
        new: &[Object],
        others: &BTreeMap<String, File>,
    ) {
        let (old, new) = (first_of_each(old), first_of_each(new));
        let ids: BTreeSet<&ObjectId> = old.keys().chain(new.keys()).collect();
        let ids: BTreeSet<&ObjectId> = ids.into_iter().filter(|id| old.get(id) != new.get(id)).collect();
        self.find_others(ids.iter().filter(|id| !old.contains_key(id)).copied(), others);
        for id in ids {
            let alone = || if old.contains_key(id) { vec![name.to_owned()] } else { vec![] };
            let mut files = self.repeated.remove(id).unwrap_or_else(alone);
            files.retain(|file| file != name);
            files.extend(std::iter::repeat_n(name.to_owned(), new.get(id).map_or(0, |(_, count)| *count)));
            files.sort();
            match (files.first(), new.get(id)) {
                (None, _) => drop(self.objects.remove(id)),
                (Some(first), Some((object, _))) if first == name => self.objects.insert((*object).clone()),
                (Some(first), _) => {
                    let held = others.get(first).and_then(|file| file.objects.as_ref());
                    let object = held.into_iter().flatten().find(|object| object.id() == *id);
                    object.into_iter().for_each(|object| self.objects.insert(object.clone()));
                }
            }
            if files.len() > 1 {
                self.repeated.insert(id.clone(), files);
            }
        }
    }

    /// Writes down which file holds those of `ids` that exactly one does: it is about to be no longer the only one. They
    /// are looked for in all files, which is done for a mistake only.
    fn find_others<'a>(&mut self, ids: impl Iterator<Item = &'a ObjectId>, others: &BTreeMap<String, File>) {
        let met = |id: &&ObjectId| self.objects.contains(id) && !self.repeated.contains_key(*id);
        let met: BTreeSet<&ObjectId> = ids.filter(met).collect();
        if met.is_empty() {
            return;
        }
        for (name, file) in others {
            for id in file.objects.iter().flatten().map(Object::id).filter(|id| met.contains(id)) {
                self.repeated.insert(id, vec![name.clone()]);
            }
        }
    }
}
