//! Tables that follow the cluster's objects.

use std::mem;

use super::node::Nodes;
use super::problems::Problems;
use super::service::{self, Services};
use super::{Settings, TableSet};
use crate::kube::Objects;

/// The tables of some objects, and what is needed to say what becomes of them when objects change.
///
/// [`whole`](Self::whole) makes them of all objects. [`update`](Self::update) makes only what depends on changed objects,
/// and so costs what these do; its outcome is that of `whole`, to which tests hold it.
#[derive(Debug, PartialEq)]
pub struct Compiler {
    settings: Settings,
    objects: Objects,
    tables: TableSet,
    problems: Problems,
    nodes: Nodes,
    services: Services,
}

impl Compiler {
    /// The tables of `objects`. Equal objects give equal tables.
    pub fn whole(settings: Settings, objects: Objects) -> Self {
        let (mut tables, mut problems) = (TableSet::default(), Problems::default());
        let nodes = Nodes::whole(&settings, &objects.nodes, &mut tables, &mut problems);
        let services = Services::whole(&settings, &objects, &mut tables.services, &mut problems);
        Self { settings, objects, tables, problems, nodes, services }
    }

    /// Has the tables be those of `objects`.
    pub fn update(&mut self, objects: Objects) {
        let old = mem::replace(&mut self.objects, objects);
        let Self { settings, objects, tables, problems, nodes, services } = self;
        nodes.update(settings, [&old.nodes, &objects.nodes], tables, problems);
        if service::place(&old, settings) == service::place(objects, settings) {
            services.update(settings, [&old, objects], &mut tables.services, problems);
        } else {
            // Every endpoint is nearer or farther now.
            *self = Self::whole(settings.clone(), objects.clone());
        }
    }

    /// The tables, not yet marked as synced.
    pub fn tables(&self) -> &TableSet {
        &self.tables
    }

    /// What was left out of them, and why.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }
}

#[cfg(test)]
mod tests;
