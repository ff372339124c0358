// @octokit/rest as a user writes it; only baseUrl and auth come from outside.
import { Octokit } from "@octokit/rest";

const octokit = new Octokit({ baseUrl: process.env.E2E_BASE_URL, auth: process.env.E2E_TOKEN });
const where = { owner: "acme", repo: "widgets" };
const repository = await octokit.rest.repos.get(where);
const issues = await octokit.paginate(octokit.rest.issues.listForRepo, { ...where, state: "all", per_page: 2 });
const created = await octokit.rest.issues.create({ ...where, title: "From Node" });
console.log(JSON.stringify({ repository: repository.data.full_name, issues: issues.length, created: created.data.title }));
