// What nginx cannot say by itself: keys, readiness, and the time that is left.

import crypto from 'crypto';
import fs from 'fs';

const STOPPED = 'TorchServe does not run';
const NO_NODE = 'no node of Ray Serve answers';

function parsed(path) {
    try {
        return JSON.parse(fs.readFileSync(path, 'utf8'));
    } catch (error) {
        return null;  // not there, or half written
    }
}

// SHA-256 of the key that a client sent, by which the map of clients knows it.
function keyHash(r) {
    const found = /^bearer +([^ ]+) *$/i.exec(r.headersIn.Authorization || '');
    return found ? crypto.createHash('sha256').update(found[1]).digest('hex') : '';
}

// TorchServe's own keys. They are others after each start and each rotation, so they are read for each request.
function torchserveKey(r, api) {
    const keys = parsed(`${r.variables.run_folder}/key_file.json`);
    return keys && keys[api] && keys[api].key ? `Bearer ${keys[api].key}` : '';
}

function managementKey(r) {
    return torchserveKey(r, 'management');
}

// None while TorchServe is being stopped, lest what comes anew keeps it from ending.
function inferenceKey(r) {
    const stopping = fs.statSync(`${r.variables.run_folder}/draining`, {throwIfNoEntry: false});
    return stopping ? '' : torchserveKey(r, 'inference');
}

// A refusal after the limits of requests, which `return` would come before.
function unauthorized(r) {
    r.return(401);
}

async function asked(r, path) {
    const answer = await r.subrequest(path);
    try {
        return {status: answer.status, body: JSON.parse(answer.responseText)};
    } catch (error) {
        return {status: answer.status, body: null};
    }
}

async function ofSupervisor(r) {
    if (!parsed(`${r.variables.run_folder}/supervisor.json`)) {
        return null;
    }
    const answer = await asked(r, '/-/supervisor');
    return answer.body && answer.body.models ? answer.body : null;
}

async function ofManagement(r) {
    const server = parsed(`${r.variables.run_folder}/server.json`);
    const names = server ? server.models : [];
    const models = {};
    for (let index = 0; index < names.length; index++) {
        const answer = await asked(r, `/-/models/${names[index]}`);
        const workers = answer.status == 200 && answer.body ? answer.body[0].workers : [];
        models[names[index]] = workers.some((worker) => worker.status == 'READY') ? 'READY' : 'UNAVAILABLE';
    }
    const unready = names.filter((name) => models[name] != 'READY');
    return {ready: names.length > 0 && unready.length == 0, models: models, unready: unready};
}

// An application is ready when a node that takes requests has its route; how many nodes do is told as well.
async function ofNodes(r) {
    const names = r.variables.ray_applications.split(' ');
    const asking = [];
    for (let index = 0; index < Number(r.variables.ray_nodes); index++) {
        asking.push(asked(r, `/-/nodes/${index}`));
    }
    const answers = await Promise.all(asking);
    const routes = answers.filter((answer) => answer.status == 200 && answer.body).map((answer) => answer.body);
    const models = {};
    names.forEach((name) => {
        models[name] = routes.some((known) => known[`/${name}`]) ? 'READY' : 'UNAVAILABLE';
    });
    const unready = names.filter((name) => models[name] != 'READY');
    return {ready: unready.length == 0, models: models, unready: unready,
            nodes: {ready: routes.length, all: answers.length}};
}

// Whether less than half of the time is left, in which a retry would have to answer.
function late(r) {
    return Date.now() / 1000 - Number(r.variables.began) > Number(r.variables.deadline_s) / 2 ? '1' : '';
}

async function states(r) {
    const found = r.variables.ray_nodes ? await ofNodes(r) : await ofSupervisor(r) || await ofManagement(r);
    r.headersOut['Content-Type'] = 'application/json';
    return found;
}

function busy(r, message, more) {
    r.return(503, JSON.stringify(Object.assign({code: 503, error: 'busy', field: 'models', message: message}, more)));
}

// 200 when every model has a worker that is ready; else an error that names those that have none.
async function readiness(r) {
    const found = await states(r);
    if (found.ready) {
        r.return(200, JSON.stringify(found));
        return;
    }
    const unready = found.unready || [];
    const silent = found.nodes && !found.nodes.ready ? NO_NODE : '';
    busy(r, silent || (unready.length ? `not ready: ${unready.join(', ')}` : STOPPED), found);
}

// The names of the models, as KServe's protocols list them.
async function models(r) {
    const found = await states(r);
    const names = Object.keys(found.models || {}).map((address) => address.split('/')[0]);
    if (names.length == 0) {
        busy(r, STOPPED, {});
        return;
    }
    r.return(200, JSON.stringify({models: names.filter((name, index) => names.indexOf(name) == index)}));
}

// 200 when a model has a worker that is ready. A model of one version is known by its name alone, and one of several
// is ready by its name if any of them is.
async function modelReadiness(r) {
    const all = await states(r);
    const found = all.models || {};
    const name = r.variables.name;
    const address = name + r.variables.version;
    const known = Object.keys(found).filter(
        (each) => each == address || each == name || (address == name && each.startsWith(`${name}/`)));
    if (known.length > 0) {
        if (known.some((each) => found[each] == 'READY')) {
            r.return(200, JSON.stringify({name: name, ready: true}));
        } else {
            busy(r, `not ready: ${address}`, {});
        }
    } else if (Object.keys(found).length > 0) {
        r.return(404);
    } else {
        busy(r, STOPPED, {});
    }
}

export default {keyHash, inferenceKey, managementKey, late, unauthorized, readiness, models, modelReadiness};
